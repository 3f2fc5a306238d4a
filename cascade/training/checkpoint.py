"""Saves and restores runs: weights, averages, optimisers and position, all without pickle."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from cascade.errors import WeightsError
from cascade.saving.atomic import atomic_folder, remove_folder
from cascade.saving.components import read_json
from cascade.stage import Stage
from cascade.training.averaging import PowerAverage
from cascade.training.moments import named_moments, restore_moments
from cascade.training.processes import together
from cascade.training.sharding import cut_like, gather

TENSOR_FILES = ("stage.safetensors", "ema.safetensors", "optimisers.safetensors")
LEARNED_FILE = "learned.safetensors"  # only if the objective trains a network besides the stage
FORMAT = 3
CHECKPOINT_FILES = (*TENSOR_FILES, LEARNED_FILE, "state.json")
COUNTERS = ("images_seen", "steps", "bad_steps", "bad_steps_in_a_row")
logger = logging.getLogger(__name__)


class CheckpointFormatError(WeightsError):
    """A checkpoint was written by another version of Cascade."""


@dataclass
class RunState:
    """Everything that changes during a run and is saved in a checkpoint.

    Attributes:
        stage: the stage in training.
        ema: exponential moving average of its weights.
        optimisers: the optimisers, with their moments.
        power_averages: the averages that are stored as snapshots; may be empty.
        learned: what the objective trains besides the stage; None for nothing.
        images_seen: number of images seen, which is the position in the data.
        progress: share of the run, in [0, 1), that the objective goes by. It never falls, also when
            a run becomes longer.
        steps: number of optimiser steps.
        bad_steps: number of steps skipped because the loss or gradient was not finite.
        bad_steps_in_a_row: how many of the latest steps were skipped without a break.
        broken: one `name: reason` per image that could not be used.
        recent_losses: losses of the steps since the last line of the log.
    """

    stage: Stage
    ema: EMAModel
    optimisers: list[Optimizer]
    power_averages: list[PowerAverage] = field(default_factory=list)
    learned: nn.Module | None = None
    images_seen: int = 0
    progress: float = 0.0
    steps: int = 0
    bad_steps: int = 0
    bad_steps_in_a_row: int = 0
    broken: list[str] = field(default_factory=list)
    recent_losses: list[float] = field(default_factory=list)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the stage, and of what the objective trains as `learned.NAME`."""
        result = dict(self.stage.named_parameters())
        if self.learned is not None:
            result |= dict(self.learned.named_parameters(prefix="learned"))
        return result


@dataclass(frozen=True)
class Checkpoint:
    """The checked contents of a checkpoint, not yet restored into a run.

    Attributes:
        folder: folder of the checkpoint.
        values: contents of `state.json`.
        tensors: contents of each safetensors file, by file name.
    """

    folder: Path
    values: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def save_checkpoint(
    state: RunState, folder: Path, *, keep: int, about: dict[str, Any], main: bool = True
) -> Path:
    """Write `folder/<images seen>` atomically and remove all but the newest `keep`.

    All processes must call this, because each may hold only a part of the weights. The files do
    not depend on how many processes there are.

    Args:
        state: the run.
        folder: folder of the run's checkpoints.
        keep: number of checkpoints to keep, at least 1.
        about: nested plain values that must not change when the run resumes.
        main: whether this process writes.

    Returns:
        The folder of the checkpoint.

    Raises:
        OutputError: if it cannot be written, as on a full disk; older checkpoints remain.
    """
    target = folder / f"{state.images_seen:012d}"
    tensors = {name: gather(values, keep=main) for name, values in _tensors(state).items()}
    with together():
        if main:
            _write(state, target, tensors, about)
            _remove_old(state, folder, keep)
    return target


def _tensors(state: RunState) -> dict[str, dict[str, Tensor]]:
    """The contents of each safetensors file, by file name."""
    files: dict[str, dict[str, Tensor]] = {
        "stage.safetensors": state.stage.state_dict(),
        "ema.safetensors": _averages(state),
        "optimisers.safetensors": named_moments(state.parameters(), state.optimisers),
    }
    if state.learned is not None:
        files[LEARNED_FILE] = state.learned.state_dict()
    return files


def _write(
    state: RunState, target: Path, tensors: dict[str, dict[str, Tensor]], about: dict[str, Any]
) -> None:
    with atomic_folder(target, owned=CHECKPOINT_FILES) as temporary:
        for name, values in tensors.items():
            save_file(_contiguous(values), temporary / name)
        values = {
            "format": FORMAT,
            **{name: getattr(state, name) for name in COUNTERS},
            "progress": state.progress,
            "ema_steps": state.ema.optimization_step,
            "broken": state.broken,
            "recent_losses": state.recent_losses,
            "sha256": {name: _sha256(temporary / name) for name in tensors},
            "about": about,
        }
        (temporary / "state.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _remove_old(state: RunState, folder: Path, keep: int) -> None:
    """Prune checkpoints up to this one; a damaged one further ahead must not count as newest."""
    past = [path for path in checkpoints(folder) if int(path.name) <= state.images_seen]
    for path in past[:-keep]:
        remove_folder(path)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    complete = [
        path
        for path in folder.glob("[0-9]*")
        if path.name.isdecimal() and (path / "state.json").is_file()
    ]
    return sorted(complete, key=lambda path: int(path.name))


def read_newest(folder: Path) -> Checkpoint | None:
    """Read the newest checkpoint that is not damaged.

    Args:
        folder: folder of the run's checkpoints; it need not exist.

    Returns:
        The checkpoint, or None if the run has none.

    Raises:
        WeightsError: if all checkpoints are damaged, or the newest was written by another version
            of Cascade.
    """
    paths = checkpoints(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except CheckpointFormatError:
            raise
        except WeightsError as error:
            logger.warning("%s Trying the one before.", error)
    if paths:
        raise WeightsError(f"no good checkpoint in {folder}; remove the folder to start again.")
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check its files against their hashes.

    Raises:
        CheckpointFormatError: if another version of Cascade wrote it.
        WeightsError: if it is damaged.
    """
    try:
        values = read_json(folder / "state.json")
        _check_format(values, folder)
        _check_complete(values, folder)
        tensors = {name: load_file(folder / name) for name in _files(values)}
    except CheckpointFormatError:
        raise
    except (SafetensorError, OSError, WeightsError, LookupError, TypeError) as error:
        raise WeightsError(f"checkpoint {folder} is damaged ({error}).") from error
    return Checkpoint(folder, values, tensors)


def _check_format(values: dict[str, Any], folder: Path) -> None:
    if values["format"] != FORMAT:
        raise CheckpointFormatError(
            f"checkpoint {folder} has format {values['format']}, but this version of Cascade reads "
            f"format {FORMAT}; resume with the version that wrote it, or begin a new run in "
            "another folder."
        )


def _files(values: dict[str, Any]) -> list[str]:
    """The safetensors files of a checkpoint."""
    return [*TENSOR_FILES, *({LEARNED_FILE} & set(values["sha256"]))]


def _check_complete(values: dict[str, Any], folder: Path) -> None:
    for name in _files(values):
        if _sha256(folder / name) != values["sha256"][name]:
            raise WeightsError(f"{name} has changed since it was written")
    missing_keys = {*COUNTERS, "ema_steps", "broken", "about"} - set(values)
    if missing_keys:
        raise WeightsError(f"state.json has no {min(missing_keys)}")


def restore(state: RunState, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into a run.

    Args:
        state: a run of the same stage and optimisers; changed in place.
        checkpoint: what to load.

    Raises:
        WeightsError: if the checkpoint belongs to another stage.
    """
    values, tensors = checkpoint.values, checkpoint.tensors
    try:
        _restore_weights(state, tensors["stage.safetensors"], tensors["ema.safetensors"])
        if state.learned is not None:
            state.learned.load_state_dict(tensors[LEARNED_FILE])
        restore_moments(state.parameters(), state.optimisers, tensors["optimisers.safetensors"])
        state.ema.optimization_step = values["ema_steps"]
        for name in COUNTERS:
            setattr(state, name, int(values[name]))
        state.progress = float(values.get("progress", 0.0))
        state.broken = list(values["broken"])
        state.recent_losses = list(values["recent_losses"])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"checkpoint {checkpoint.folder} belongs to another stage; use another folder."
        ) from error


def _restore_weights(
    state: RunState, weights: dict[str, Tensor], averaged: dict[str, Tensor]
) -> None:
    current = state.stage.state_dict()
    state.stage.load_state_dict({k: cut_like(v, current[k]) for k, v in weights.items()})
    averages = _averages(state)
    for name, value in averaged.items():
        average = averages.pop(name)
        average.copy_(cut_like(value, average))
    if averages:
        raise ValueError(f"no average {min(averages)}")


def _averages(state: RunState) -> dict[str, Tensor]:
    """All averaged weights by name; those of snapshots have their width as a prefix."""
    names = [name for name, _ in state.stage.named_parameters()]
    averages = dict(zip(names, state.ema.shadow_params, strict=True))
    for average in state.power_averages:
        for name, value in zip(names, average.values, strict=True):
            averages[f"{average.width}:{name}"] = value
    return averages


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
