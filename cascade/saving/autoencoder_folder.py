"""The folder of an autoencoder stage: `stage.json`, and the network as in diffusers' VAEs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cascade.conditioning.latents import Latents
from cascade.contract import Contract
from cascade.errors import WeightsError, nearest
from cascade.networks.autoencoder import AUTOENCODERS, FOLDER, Autoencoder, DiffusersAutoencoder
from cascade.saving.components import (
    WEIGHTS,
    load_component,
    load_tensors,
    read_json,
    save_component,
)
from cascade.saving.stage_folder import CONFIG, Built, read_stage


def autoencoder_config(network: Autoencoder, contract: Contract) -> dict[str, Any]:
    """The values in `stage.json` of an autoencoder stage, besides its kind."""
    return {"network": {"kind": network.kind}, "contract": contract.to_dict()}


def write_autoencoder(
    network: Autoencoder, latents: Latents, folder: Path, *, dtype: torch.dtype | None = None
) -> None:
    """Write a network so that diffusers reads it with its shift and scale.

    Raises:
        WeightsError: if the network is of a class of one's own, which has no file format.
    """
    if not isinstance(network, DiffusersAutoencoder):
        raise WeightsError(
            f"{type(network).__name__} cannot be saved; autoencoders that can are "
            f"{', '.join(AUTOENCODERS)}."
        )
    model = copy.copy(network.model)
    model.register_to_config(scaling_factor=latents.scale, shift_factor=latents.shift)
    save_component(model, folder / FOLDER, dtype=dtype)


def read_autoencoder_stage(folder: Path, stage_class: Callable[..., Built]) -> Built:
    """Build the autoencoder stage that a folder holds, on the CPU, in float32.

    Args:
        folder: folder of the stage.
        stage_class: `AutoencoderStage`, which stands on a floor above.

    Raises:
        WeightsError: if the folder is missing, incomplete, damaged, or not such a stage.
    """

    def build(config: dict[str, Any]) -> Built:
        network_class = _class_named(config["network"]["kind"], folder / CONFIG)
        contract = Contract.from_dict(config["contract"])
        network = network_class(load_component(network_class.model_class(), folder / FOLDER))
        return stage_class(network, contract)

    return read_stage(folder, "an autoencoder stage", build)


def read_diffusers_autoencoder(folder: Path) -> tuple[Autoencoder, float, float]:
    """Read an autoencoder that diffusers saved.

    Returns:
        The network, its shift and its scale.

    Raises:
        WeightsError: if a file is missing, damaged, pickled, or of another model.
    """
    config = read_json(folder / "config.json")
    classes = {each.saved_as: each for each in AUTOENCODERS.values()}
    name = str(config.get("_class_name"))
    if name not in classes:
        raise WeightsError(
            f"{folder / 'config.json'}: no autoencoder {name!r}: {', '.join(classes)}"
        )
    if not (folder / WEIGHTS).is_file():
        load_tensors(folder)  # explains what is there instead
    try:  # diffusers' own loading renames the attention layers of old files
        model, report = (
            classes[name]
            .model_class()
            .from_pretrained(
                folder,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
            )
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise WeightsError(f"{folder}: not the weights of an {name} ({error}).") from error
    unfit = [*report["missing_keys"], *report["unexpected_keys"]]
    if unfit:
        raise WeightsError(f"{folder}: tensor {min(unfit)!r} does not fit its {name}.")
    shift, scale = model.config.shift_factor or 0.0, model.config.scaling_factor
    return classes[name](model.float().eval()), float(shift), float(scale)


def _class_named(kind: str, file: Path) -> type[DiffusersAutoencoder]:
    if kind not in AUTOENCODERS:
        raise WeightsError(f"{file}: unknown autoencoder {kind!r}: {nearest(kind, AUTOENCODERS)}")
    return AUTOENCODERS[kind]
