"""Checkpoints of a run: weights, averages, optimisers, position. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from cascade.errors import WeightsError
from cascade.saving.atomic import atomic_folder, remove_folder
from cascade.saving.components import read_json
from cascade.stage import Stage
from cascade.training.averaging import PowerAverage
from cascade.training.processes import together
from cascade.training.sharding import cut_like, gather

TENSOR_FILES = ("stage.safetensors", "ema.safetensors", "optimisers.safetensors")
FORMAT = 2
CHECKPOINT_FILES = (*TENSOR_FILES, "state.json")
COUNTERS = ("images_seen", "steps", "bad_steps", "bad_steps_in_a_row")
logger = logging.getLogger(__name__)


class CheckpointFormatError(WeightsError):
    """A checkpoint that another version of Cascade wrote."""


@dataclass
class RunState:
    """What a checkpoint holds and a run goes on from.

    Attributes:
        stage: the trained stage.
        ema: its averaged weights.
        optimisers: with their moments.
        power_averages: those that snapshots are made of; may be none.
        images_seen: the position in the data.
        steps: optimiser steps made.
        bad_steps: steps that were skipped because loss or gradient was not finite.
        bad_steps_in_a_row: how many of them were the last ones.
        broken: images that could not be used, each as `name: reason`.
        recent_losses: of the steps since the last line of the log.
    """

    stage: Stage
    ema: EMAModel
    optimisers: list[Optimizer]
    power_averages: list[PowerAverage] = field(default_factory=list)
    images_seen: int = 0
    steps: int = 0
    bad_steps: int = 0
    bad_steps_in_a_row: int = 0
    broken: list[str] = field(default_factory=list)
    recent_losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    """What was read from a folder, whole and undamaged, but not yet put to use."""

    folder: Path
    values: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save_checkpoint(
    state: RunState, folder: Path, *, keep: int, about: dict[str, Any], main: bool = True
) -> Path:
    """Write `folder/<images seen>` atomically and remove all but the newest `keep`.

    All processes must come here, since each may have a part of the weights only; what the main one
    writes does not tell how many there were.

    Args:
        state: of the run.
        folder: of the run's checkpoints.
        keep: how many to leave.
        about: plain values that a resumed run must agree with.
        main: whether this process writes.

    Raises:
        OutputError: if it cannot be written, as on a full disk; older checkpoints stay.
    """
    target = folder / f"{state.images_seen:012d}"
    in_parts = (state.stage.state_dict(), _averages(state), _optimiser_tensors(state))
    tensors = [gather(values, keep=main) for values in in_parts]
    with together():
        if main:
            _write(state, target, tensors, about)
            _remove_old(state, folder, keep)
    return target


def _write(
    state: RunState, target: Path, tensors: list[dict[str, Tensor]], about: dict[str, Any]
) -> None:
    with atomic_folder(target, owned=CHECKPOINT_FILES) as temporary:
        for name, values in zip(TENSOR_FILES, tensors, strict=True):
            save_file(_contiguous(values), temporary / name)
        values = {
            "format": FORMAT,
            **{name: getattr(state, name) for name in COUNTERS},
            "ema_steps": state.ema.optimization_step,
            "broken": state.broken,
            "recent_losses": state.recent_losses,
            "sha256": {name: _sha256(temporary / name) for name in TENSOR_FILES},
            "about": about,
        }
        (temporary / "state.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _remove_old(state: RunState, folder: Path, keep: int) -> None:
    passed = [path for path in checkpoints(folder) if int(path.name) <= state.images_seen]
    for old in passed[:-keep]:  # a damaged one that is ahead must not push out a good one
        remove_folder(old)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [
        path
        for path in folder.glob("[0-9]*")
        if path.name.isdecimal() and (path / "state.json").is_file()
    ]
    return sorted(found, key=lambda path: int(path.name))


def read_newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is not damaged; None if there is none at all.

    Raises:
        WeightsError: if there are checkpoints and every one is damaged, or the newest is of
            another version of Cascade.
    """
    error = None
    for path in reversed(checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except CheckpointFormatError:
            raise
        except WeightsError as damage:
            logger.warning("%s Trying the one before.", damage)
            error = damage
    if error is not None:
        raise WeightsError(f"no good checkpoint in {folder}; remove the folder to start anew.")
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and compare its files with their hashes.

    Raises:
        CheckpointFormatError: if another version of Cascade wrote it.
        WeightsError: if it is damaged.
    """
    try:
        values = read_json(folder / "state.json")
        if "images_seen" in values and values.get("format", 1) != FORMAT:
            raise CheckpointFormatError(
                f"checkpoint {folder} has format {values.get('format', 1)}, and this version of "
                f"Cascade goes on from format {FORMAT}; use the version that wrote it, or a new "
                "--out with train.init_from."
            )
        for name in TENSOR_FILES:
            if _sha256(folder / name) != values["sha256"][name]:
                raise WeightsError(f"{name} is not what was written")
        tensors = {name: load_file(folder / name) for name in TENSOR_FILES}
        missing = {*COUNTERS, "ema_steps", "broken", "about"} - set(values)
        if missing:
            raise WeightsError(f"state.json has no {min(missing)}")
    except CheckpointFormatError:
        raise
    except (SafetensorError, OSError, WeightsError, LookupError, TypeError) as error:
        raise WeightsError(f"checkpoint {folder} is damaged ({error}).") from error
    return Checkpoint(folder, values, tensors)


def restore(state: RunState, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's values into the state.

    Raises:
        WeightsError: if it is of another stage.
    """
    values, tensors = checkpoint.values, checkpoint.tensors
    try:
        weights = state.stage.state_dict()
        state.stage.load_state_dict(
            {k: cut_like(v, weights[k]) for k, v in tensors["stage.safetensors"].items()}
        )
        averages = _averages(state)
        for name, value in tensors["ema.safetensors"].items():
            average = averages.pop(name)
            average.copy_(cut_like(value, average))
        if averages:
            raise ValueError(f"no average {min(averages)}")
        state.ema.optimization_step = values["ema_steps"]
        _restore_optimisers(state, tensors["optimisers.safetensors"])
        for name in COUNTERS:
            setattr(state, name, int(values[name]))
        state.broken = list(values["broken"])
        state.recent_losses = list(values["recent_losses"])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint.folder} is of another stage; use a new --out."
        ) from error


def _averages(state: RunState) -> dict[str, Tensor]:
    """All averaged weights by name; those for snapshots carry their width in front."""
    names = [name for name, _ in state.stage.named_parameters()]
    averages = dict(zip(names, state.ema.shadow_params, strict=True))
    for average in state.power_averages:
        for name, value in zip(names, average.values, strict=True):
            averages[f"{average.width}:{name}"] = value
    return averages


def _optimiser_tensors(state: RunState) -> dict[str, Tensor]:
    """The moments of all optimisers, by the parameters' names and not by their order."""
    names = {id(parameter): name for name, parameter in state.stage.named_parameters()}
    return {
        f"{names[id(parameter)]}:{moment}": torch.as_tensor(value)
        for optimiser in state.optimisers
        for parameter, moments in optimiser.state.items()
        for moment, value in moments.items()
    }


def _restore_optimisers(state: RunState, tensors: dict[str, Tensor]) -> None:
    if not tensors:
        return  # every step until then was skipped
    names = {id(parameter): name for name, parameter in state.stage.named_parameters()}
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition(":")
        moments.setdefault(name, {})[moment] = tensor
    for optimiser in state.optimisers:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        restored = {
            index: {
                moment: cut_like(value, parameter) if value.shape == parameter.shape else value
                for moment, value in moments.pop(names[id(parameter)]).items()
            }
            for index, parameter in enumerate(parameters)
        }
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": restored, "param_groups": groups})
    if moments:
        raise ValueError(f"moments of an unknown parameter {min(moments)}")


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
