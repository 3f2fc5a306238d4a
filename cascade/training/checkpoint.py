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
    optimisers, options = _flatten_optimisers(state.optimisers)
    names = [name for name, _ in state.stage.named_parameters()]
    averaged = dict(zip(names, state.ema.shadow_params, strict=True))
    with atomic_folder(target, owned=CHECKPOINT_FILES) as temporary:
        save_file(_contiguous(state.stage.state_dict()), temporary / "stage.safetensors")
        save_file(_contiguous(averaged), temporary / "ema.safetensors")
        save_file(_contiguous(optimisers), temporary / "optimisers.safetensors")
        values = {
            "images_seen": state.images_seen,
            "steps": state.steps,
            "ema_steps": state.ema.optimization_step,
            "optimisers": options,
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
        _restore_optimisers(
            state.optimisers, load_file(folder / "optimisers.safetensors"), values["optimisers"]
        )
        state.images_seen, state.steps = values["images_seen"], values["steps"]
        about = dict(values["about"])
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"checkpoint {folder} is damaged ({error}); remove it to go on from the one before."
        ) from error
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(f"checkpoint {folder} is of another stage; use a new --out.") from error
    return about


def _flatten_optimisers(optimisers: list[Optimizer]) -> tuple[dict[str, Tensor], list[Any]]:
    tensors: dict[str, Tensor] = {}
    groups = []
    for number, optimiser in enumerate(optimisers):
        saved = optimiser.state_dict()
        for index, moments in saved["state"].items():
            for name, tensor in moments.items():
                tensors[f"{number}.{index}.{name}"] = torch.as_tensor(tensor)
        groups.append([len(group["params"]) for group in saved["param_groups"]])
    return tensors, groups


def _restore_optimisers(
    optimisers: list[Optimizer], tensors: dict[str, Tensor], sizes: list[Any]
) -> None:
    for number, optimiser in enumerate(optimisers):
        fresh = optimiser.state_dict()
        if [len(group["params"]) for group in fresh["param_groups"]] != sizes[number]:
            raise ValueError("the optimiser has other parameters")
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            owner, index, name = key.split(".")
            if int(owner) == number:
                moments.setdefault(int(index), {})[name] = tensor
        optimiser.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
