"""Reads the configuration of a diffusers scheduler: the noise process, and how to sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import LARGEST_BETA, NoiseSchedule
from cascade.errors import WeightsError, nearest
from cascade.saving.components import read_json

CONFIG = "scheduler_config.json"
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
KNOWN_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
SAME = 1e-6  # relative difference of tables that count as equal; diffusers' are float32


def read_scheduler(folder: Path, *, learned_variance: bool) -> tuple[NoiseProcess, dict[str, Any]]:
    """Read the noise process of a diffusers pipeline, and its sampling settings.

    Args:
        folder: folder of the pipeline.
        learned_variance: whether the network has outputs for variances.

    Raises:
        WeightsError: if the configuration is missing, or describes another kind of process.
    """
    file = folder / "scheduler" / CONFIG
    file = file if file.is_file() else folder / CONFIG
    config = read_json(file)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise WeightsError(f"{file}: prediction_type {prediction!r}: {_known(PREDICTIONS)}")
    process = NoiseProcess(
        _schedule(config, file),
        prediction=PREDICTIONS[prediction],  # pyright: ignore[reportArgumentType]
        learned_variance=learned_variance,
    )
    return process, _sampling(config)


def _sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings that a scheduler's configuration states."""
    cap = config.get("sample_max_value", 1.0)
    if config.get("thresholding") and cap > 1:
        percentile = config.get("dynamic_thresholding_ratio", 0.995)
        return {"threshold": "dynamic", "percentile": percentile, "threshold_cap": cap}
    # A dynamic threshold of at most 1 is a static one.
    clips = config.get("clip_sample", True) or config.get("thresholding", False)
    return {"threshold": "static" if clips else "none"}


def _schedule(config: Mapping[str, Any], file: Path) -> NoiseSchedule:
    betas = _betas(config, file)
    steps = len(betas)
    zero = bool(config.get("rescale_betas_zero_snr", False))
    table = torch.cumprod(1 - betas, dim=0)
    for kind in ("linear", "cosine"):
        schedule = NoiseSchedule(kind, train_steps=steps)
        if torch.allclose(schedule.alpha_bar, table, rtol=SAME, atol=0):
            return NoiseSchedule(kind, train_steps=steps, zero_terminal_snr=zero)
    own = betas.tolist()
    return NoiseSchedule("betas", train_steps=steps, betas=own, zero_terminal_snr=zero)


def _betas(config: Mapping[str, Any], file: Path) -> Tensor:
    """The variances (T,) float64 of the forward process."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    steps, kind = config.get("num_train_timesteps", 1000), config.get("beta_schedule")
    if kind not in KNOWN_BETAS:
        raise WeightsError(
            f"{file} describes a {config.get('_class_name', 'scheduler')} with the beta_schedule "
            f"{kind!r}: {_known(KNOWN_BETAS)}"
        )
    if kind == "squaredcos_cap_v2":
        time = torch.arange(steps + 1, dtype=torch.float64) / steps
        alpha_bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=LARGEST_BETA)
    power = 2 if kind == "scaled_linear" else 1
    ends = [config.get(name, default) for name, default in _ENDS.items()]
    low, high = (float(end) ** (1 / power) for end in ends)
    return torch.linspace(low, high, steps, dtype=torch.float64) ** power


_ENDS = {"beta_start": 1e-4, "beta_end": 0.02}


def _known(names: Any) -> str:
    return nearest("", names) + "."
