"""Checkpoints of a run: weights, averaged weights, optimisers, position. Nothing is pickled."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from cascade.errors import WeightsError
from cascade.files import atomic_folder
from cascade.stage import Stage
from cascade.weights import read_json

CHECKPOINT_FILES = ("stage.safetensors", "ema.safetensors", "optimisers.safetensors", "state.json")


@dataclass
class RunState:
    """What a checkpoint holds and a run goes on from.

    Attributes:
        stage: the trained stage.
        ema: its averaged weights.
        optimisers: with their moments.
        images_seen: the position in the data.
        steps: optimiser steps made.
    """

    stage: Stage
    ema: EMAModel
    optimisers: list[Optimizer]
    images_seen: int = 0
    steps: int = 0


def save_checkpoint(state: RunState, folder: Path, *, keep: int, about: dict[str, Any]) -> Path:
    """Write `folder/<images seen>` atomically and remove all but the newest `keep`.

    Args:
        state: of the run.
        folder: of the run's checkpoints.
        keep: how many to leave.
        about: plain values that a resumed run must agree with.
    """
    target = folder / f"{state.images_seen:012d}"
    names = [name for name, _ in state.stage.named_parameters()]
    averaged = dict(zip(names, state.ema.shadow_params, strict=True))
    with atomic_folder(target, owned=CHECKPOINT_FILES) as temporary:
        save_file(_contiguous(state.stage.state_dict()), temporary / "stage.safetensors")
        save_file(_contiguous(averaged), temporary / "ema.safetensors")
        save_file(_contiguous(_optimiser_tensors(state)), temporary / "optimisers.safetensors")
        values = {
            "images_seen": state.images_seen,
            "steps": state.steps,
            "ema_steps": state.ema.optimization_step,
            "about": about,
        }
        (temporary / "state.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [
        path
        for path in folder.glob("[0-9]*")
        if path.name.isdecimal() and (path / "state.json").is_file()
    ]
    return sorted(found, key=lambda path: int(path.name))


def load_checkpoint(state: RunState, folder: Path) -> dict[str, Any]:
    """Put a checkpoint's values into the state.

    Returns:
        What `save_checkpoint` was given as `about`.

    Raises:
        WeightsError: if it is damaged or of another stage.
    """
    values = read_json(folder / "state.json")
    try:
        state.stage.load_state_dict(load_file(folder / "stage.safetensors"))
        averaged = load_file(folder / "ema.safetensors")
        for (name, _), shadow in zip(
            state.stage.named_parameters(), state.ema.shadow_params, strict=True
        ):
            shadow.copy_(averaged[name])
        state.ema.optimization_step = values["ema_steps"]
        _restore_optimisers(state, load_file(folder / "optimisers.safetensors"))
        state.images_seen, state.steps = values["images_seen"], values["steps"]
        about = dict(values["about"])
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"checkpoint {folder} is damaged ({error}); remove it to go on from the one before."
        ) from error
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"checkpoint {folder} is of another stage; use a new --out.") from error
    return about


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
    names = {id(parameter): name for name, parameter in state.stage.named_parameters()}
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, moment = key.rpartition(":")
        moments.setdefault(name, {})[moment] = tensor
    for optimiser in state.optimisers:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        restored = {
            index: moments.pop(names[id(parameter)]) for index, parameter in enumerate(parameters)
        }
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": restored, "param_groups": groups})
    if moments:
        raise ValueError(f"moments of an unknown parameter {min(moments)}")


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
