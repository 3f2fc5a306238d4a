"""The folder of a stage, in diffusers layout: `stage.json`, network, embedding, scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import CascadeError, WeightsError
from cascade.networks.embedding import ConditionEmbedding
from cascade.networks.image_encoder import ImageEncoder
from cascade.networks.stage_network import NETWORKS, StageNetwork
from cascade.sampling.settings import SamplingSettings
from cascade.saving.components import load_component, read_json, save_component

STAGE_ENTRIES = ("stage.json", "embedding", "encoder", "scheduler", *NETWORKS)


def write_stage(
    folder: Path,
    network: StageNetwork,
    process: NoiseProcess,
    sampling: SamplingSettings,
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a stage into a folder that the caller makes atomic.

    Args:
        folder: where to.
        network: backbone, embedding and encoder, whose weights are written.
        process: of which diffusers' scheduler is described.
        sampling: the same.
        config: of the stage, for `stage.json`.
        dtype: of the written tensors; default float32.
    """
    save_component(network.backbone, folder / network.component, dtype=dtype)
    if network.embedding is not None:
        save_component(network.embedding, folder / "embedding", dtype=dtype)
    if network.encoder is not None:
        save_component(network.encoder, folder / "encoder", dtype=dtype)
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    scheduler = scheduler_config(process, sampling)
    for name, values in (("scheduler/scheduler_config", scheduler), ("stage", config)):
        text = json.dumps(values, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def scheduler_config(process: NoiseProcess, sampling: SamplingSettings) -> dict[str, Any]:
    """What makes diffusers' DDIM scheduler walk as the stage's own does."""
    return {
        "_class_name": "DDIMScheduler",
        "prediction_type": {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}[
            process.prediction
        ],
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        **threshold_config(sampling),
        "sample_max_value": 100.0,  # diffusers' default of 1 would make it a static clip
        **process.schedule.diffusers_config(),
    }


def threshold_config(sampling: SamplingSettings) -> dict[str, Any]:
    """What diffusers' scheduler needs to know of the settings."""
    return {
        "clip_sample": sampling.threshold == "static",
        "thresholding": sampling.threshold == "dynamic",
        "dynamic_thresholding_ratio": sampling.percentile,
    }


def read_stage(folder: Path) -> dict[str, Any]:
    """The arguments of `Stage` that a folder holds, on the CPU, in float32.

    Raises:
        WeightsError: if the folder is missing, incomplete, damaged, or not a stage.
    """
    if not folder.is_dir():
        raise WeightsError(f"no stage at {folder}: the folder does not exist.")
    config = read_json(folder / "stage.json")
    try:
        return _stage_arguments(config, folder)
    except WeightsError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = error if isinstance(error, CascadeError) else repr(error)
        raise WeightsError(
            f"{folder / 'stage.json'} does not describe a stage: {reason}"
        ) from error


def _stage_arguments(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    network_class = NETWORKS[config["network"]]
    contract = Contract.from_dict(config["contract"])
    embedding = None
    if config["labels"] or contract.takes_image:
        embedding = load_component(ConditionEmbedding, folder / "embedding")
    encoder = None
    if config.get("encoder"):  # not known to the first stages that were saved, nor is the next
        encoder = load_component(ImageEncoder, folder / "encoder")
    damage = config.get("degradation")
    image_drop = "image_drop" if "image_drop" in config else "low_res_drop"  # its name before
    return {
        "network": network_class(
            load_component(network_class.backbone_class, folder / config["network"]),
            embedding,
            patch_size=config["patch_size"],
            size_multiple_px=config["size_multiple_px"],
            encoder=encoder,
        ),
        "process": NoiseProcess(NoiseSchedule(**config["schedule"]), **config["process"]),
        "contract": contract,
        "labels": LabelVocabulary(config["labels"]) if config["labels"] else None,
        "label_drop": config["label_drop"],
        "image_drop": config[image_drop],
        "blur_probability": config["blur_probability"],
        "degradation": Degradation(**damage) if damage else None,
        "sampling": SamplingSettings(**config["sampling"]),
    }
