"""Upscalers of other projects, measured beside a pipeline; spandrel rebuilds them from weights.

spandrel recognises the architecture (ESRGAN, SwinIR, HAT, SPAN and some forty more) by the names
and shapes of the weights. Its own loader unpickles files, so the weights are read here instead.

Shapes: H and W pixels of the result, h and w of the input, r the scale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from cascade.contract import Contract
from cascade.errors import ContractError, WeightsError, first_line
from cascade.extras import install_command
from cascade.importing.weight_files import Weights, read_weights
from cascade.tasks.enlarging import EnlargingTask
from cascade.tasks.table import task_of

WRAPPERS = (
    "params_ema.",
    "params-ema.",
    "params.",
    "net.",
    "state_dict.",
    "model_state_dict.",
)  # of training programs
DIGITS = 12  # of a hash


@final
class PeerUpscaler:
    """An upscaler of another project.

    Args:
        file: its weights: safetensors, or a file that torch reads with `weights_only`.
        device: where it computes.

    Attributes:
        name: name of the file.
        scale: factor from the sides of the input to those of the result.
        channels: channels of input and result.
        about: its architecture and the hash of its file, as a sentence.

    Raises:
        ContractError: if spandrel is not installed.
        WeightsError: if the file cannot be read without running code from it, or is no upscaler.
    """

    def __init__(self, file: Path, device: torch.device) -> None:
        spandrel = _spandrel()
        weights = _unwrapped(read_weights(file))
        try:
            model = spandrel.ModelLoader(device).load_from_state_dict(weights)
        except spandrel.UnsupportedModelError as error:
            raise WeightsError(
                f"{file} is not an upscaler that spandrel {spandrel.__version__} knows."
            ) from error
        except Exception as error:  # each architecture reads its sizes in its own way
            raise WeightsError(
                f"{file} is damaged or no upscaler ({first_line(error)})."
            ) from error
        if not isinstance(model, spandrel.ImageModelDescriptor) or model.scale == 1:
            raise WeightsError(f"{file} ({model.architecture.name}) does not upscale images.")
        self._model = model.eval()
        self.name = file.name
        self.scale: int = model.scale
        self.channels = (model.input_channels, model.output_channels)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:DIGITS]
        self.about = (
            f"{self.name} is {model.architecture.name}, ×{self.scale}, sha256 {digest}…, read by "
            f"spandrel {spandrel.__version__}."
        )

    def upscale(self, image: Tensor, seed: int) -> Tensor:
        """Enlarge an image as a whole.

        Args:
            image: (C, h, w) in [-1, 1].
            seed: decides the noise of architectures that draw some.

        Returns:
            (C, r h, r w) in [-1, 1], on the device of the image.
        """
        with torch.random.fork_rng():  # they know no generator but the global one
            torch.manual_seed(seed)
            result = self._model((image[None].to(self._model.device) + 1) / 2)
        return (result[0] * 2 - 1).to(image.device)


def load_peers(
    files: Sequence[str | Path], contracts: Sequence[Contract], device: torch.device
) -> list[PeerUpscaler]:
    """Load upscalers that are measured beside a pipeline.

    Args:
        files: their files of weights.
        contracts: contracts of the pipeline's stages, first stage first.
        device: where they compute.

    Raises:
        ContractError: if the pipeline does not upscale, or an upscaler does not fit it.
        WeightsError: if a file holds no upscaler.
    """
    paths = [Path(file) for file in files]
    if not paths:
        return []
    task, space = task_of(contracts), contracts[-1].space
    if not isinstance(task, EnlargingTask) or space.has_bands:
        raise ContractError(
            "other upscalers can be measured beside a pipeline that upscales colour images, but "
            f"this one {'upscales bands' if space.has_bands else task.description}; leave them "
            "out."
        )
    if len({path.name for path in paths}) < len(paths):
        raise ContractError(
            "two upscalers have files of the same name; rename one to tell them apart."
        )
    peers = [PeerUpscaler(path, device) for path in paths]
    scale = space.longer_px * contracts[0].scale / contracts[0].space.longer_px
    for peer in peers:
        if peer.scale != scale:
            raise ContractError(
                f"{peer.name} upscales {peer.scale} times, but the pipeline {scale:g} times; name "
                f"an upscaler of {scale:g} times."
            )
        if peer.channels != (space.channels, space.channels):
            raise ContractError(
                f"{peer.name} makes {peer.channels[1]} channels from {peer.channels[0]}, but the "
                f"pipeline's images have {space.channels}; name another upscaler."
            )
    return peers


def _unwrapped(weights: Weights) -> Weights:
    """The weights of the network itself, without the name under which a program saved them."""
    for wrapper in WRAPPERS:
        inner = {
            name.removeprefix(wrapper): tensor
            for name, tensor in weights.items()
            if name.startswith(wrapper)
        }
        if inner:
            return inner
    return weights


def _spandrel() -> Any:
    """The package that knows the architectures.

    Raises:
        ContractError: if it is not installed.
    """
    try:
        import spandrel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ContractError(
            f"other upscalers need spandrel; run {install_command('spandrel')}."
        ) from error
    return spandrel
