"""Stage: an independently trained model with a contract; the interface of every kind of stage.

Shapes: B images, C channels, H and W pixels of the stage's results, h and w pixels of the images
that it takes.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cascade.arguments import check_kind
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.devices import Precision, free_memory
from cascade.errors import ContractError
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks
from cascade.saving.atomic import atomic_folder
from cascade.saving.components import weights_digest
from cascade.saving.model_card import StageSummary
from cascade.saving.stage_folder import stage_entries, write_config
from cascade.space import Size, Space


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one call of a stage is carried out.

    Attributes:
        settings: sampling settings; None for the stage's own.
        tiles: how to cut images that are too large for one pass; None for whole images.
        hooks: extra work during sampling, such as known pixels, callbacks and progress.
        stream: name of the random stream; each stage of a pipeline has another one.
        precision: `fp32`, `bf16`, or `auto`, which is bf16 where the hardware is fast at it.

    Raises:
        ContractError: if settings, tiles or hooks are of another kind.
    """

    settings: SamplingSettings | None = None
    tiles: Tiles | None = None
    hooks: Hooks = field(default_factory=Hooks)
    stream: str = "sample"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        check_kind("settings", self.settings, SamplingSettings | None, "SamplingSettings or None")
        check_kind("tiles", self.tiles, Tiles | None, "Tiles(tile_px) or None")
        check_kind("hooks", self.hooks, Hooks, "Hooks(...)")


class Stage(nn.Module, ABC):
    """A trained model in a chain.

    Args:
        contract: the images that the stage makes, and its conditions.

    Attributes:
        computing_device: the device to which `placed` moves the weights; None to leave them where
            they are.
    """

    kind: ClassVar[str]  # the name in `stage.json`

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.contract = contract
        self.computing_device: torch.device | None = None

    @property
    def space(self) -> Space:
        """Size, channels and range of the images that the stage makes."""
        return self.contract.space

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions that steer the stage."""
        return self.contract.conditions

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Keep the weights on `computing_device` during a `with`, and on the CPU after it."""
        if self.computing_device is None:
            yield
            return
        try:
            self.to(self.computing_device)
            yield
        finally:
            self.to("cpu")
            free_memory(self.computing_device)

    @property
    @abstractmethod
    def trunk(self) -> nn.Module:
        """The module that training compiles, and in which it checkpoints activations."""

    @property
    @abstractmethod
    def sampling(self) -> SamplingSettings:
        """The settings that the stage samples with unless a call changes them."""

    @property
    def has_settings(self) -> bool:
        """Whether sampling settings have an effect, because the stage samples in steps."""
        return True

    @abstractmethod
    def with_sampling(self, settings: SamplingSettings) -> Stage:
        """Return a stage that shares the weights and has other default settings.

        Raises:
            ContractError: naming the setting that does not fit.
        """

    def with_adapter(self, folder: str | Path, scale: float = 1.0) -> Stage:
        """Return a stage with the change that an adapter was trained to make.

        Args:
            folder: folder of the adapter, of the stage that was trained with it, or of the run.
            scale: factor of the change; 1 as in training.

        Raises:
            CascadeError: if the stage takes no adapters, or the adapter does not fit.
        """
        raise ContractError(f"a {self.kind} stage takes no adapters.")

    @abstractmethod
    def default_tile_px(self, size_px: Size) -> int:
        """The tile side in pixels that suits the stage and the free memory.

        Args:
            size_px: height and width of the result.
        """

    @abstractmethod
    def check_settings(self, settings: SamplingSettings) -> None:
        """Check before any work that the stage can sample with these settings.

        Raises:
            ContractError: naming the setting that does not fit.
        """

    @abstractmethod
    def check_walk(self, *, goes_back: bool, from_image: bool) -> None:
        """Check before any work that the stage can sample in some way with its own settings.

        Args:
            goes_back: whether it goes over its steps again; see `Hooks.resampling`.
            from_image: whether it starts from images instead of noise; see `Hooks.start_from`.

        Raises:
            SettingsError: naming what it cannot do, and what to change.
        """

    @abstractmethod
    def run(
        self,
        seeds: Sequence[int],
        inputs: Inputs | None = None,
        previous: Tensor | None = None,
        run: Run | None = None,
    ) -> Tensor:
        """Make images, one per seed.

        The same seed gives the same image at any batch size, up to the rounding of the device.

        Args:
            seeds: one whole number per image.
            inputs: the user's inputs, one per seed; None for no inputs.
            previous: (B, C, h, w), the images of the previous stage, in [-1, 1] for pixels; None
                for the first stage.
            run: settings, tiles and hooks; None for the defaults.

        Returns:
            (B, C, H, W) float32, in [-1, 1] for pixels.

        Raises:
            ContractError: if inputs or settings do not fit the contract.
        """

    @abstractmethod
    def summary(self) -> StageSummary:
        """The facts about the stage that a model card lists."""

    def with_known_texts(self, texts: Iterable[str]) -> Stage:
        """Return a stage that shares the weights and carries the embeddings of some texts.

        Prompts among them need no text encoder. They are saved with the stage.

        Args:
            texts: the texts, whose embeddings may take 4 MiB.

        Raises:
            CascadeError: if the stage takes no text, the encoder cannot be found, or the texts are
                too many.
        """
        if not self.contract.takes_text:
            raise ContractError("known texts are for stages with a condition that takes text.")
        texts = list(texts)
        contract = self.contract.changed(lambda condition: condition.with_known_texts(texts))
        other = copy.copy(self)
        other._modules = dict(self._modules)  # so that a new network in one leaves the other alone
        other.contract = contract
        return other

    def meaning(self) -> dict[str, Any]:
        """What the numbers of the weights stand for, as plain values."""
        return {"contract": self.contract.to_dict()}

    # ---- saving ---------------------------------------------------------------------------------

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything except the weights, as plain values for `stage.json`."""

    @abstractmethod
    def write_weights(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write all files except `stage.json` into a folder."""

    def write(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write into a folder that the caller makes atomic."""
        config = {"kind": self.kind, **self.config()}
        self.write_weights(folder, dtype=dtype)
        for each in self.conditions:
            each.write_files(folder)
        write_config(folder, config)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the stage in diffusers layout, with `stage.json` beside the components.

        Args:
            folder: the stage's folder, which is replaced once the new one is complete.
            dtype: floating-point type of the written tensors; default: that of the weights.

        Raises:
            OutputError: if the folder cannot be written, or holds anything but a saved stage.
        """
        folder = Path(folder)
        with atomic_folder(folder, owned=stage_entries(folder), follow=True) as temporary:
            self.write(temporary, dtype=dtype)

    @classmethod
    @abstractmethod
    def from_pretrained(cls, folder: str | Path) -> Stage:
        """Load a stage of this kind that `save_pretrained` wrote, on the CPU, in float32.

        Raises:
            WeightsError: if the folder is missing, incomplete, damaged, or of another kind.
        """


def stages_digest(stages: Iterable[Stage]) -> str:
    """Hash what stages are: their weights and what these stand for, without sampling settings.

    Returns:
        16 hexadecimal digits.
    """
    stages = list(stages)
    text = json.dumps([weights_digest(*stages), *(stage.meaning() for stage in stages)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
