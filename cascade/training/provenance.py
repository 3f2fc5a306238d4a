"""The origin of a run: command, versions, hardware and data, in `about.json` in its folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from cascade.data.remote import without_secrets
from cascade.data.source import ImageSource
from cascade.data.tensors import TensorSource
from cascade.data.training_images import TrainingImages
from cascade.devices import best_device
from cascade.errors import WeightsError
from cascade.saving.atomic import atomic_file
from cascade.saving.components import read_json
from cascade.saving.differences import differences
from cascade.stage import Stage
from cascade.training.grids import grid_columns
from cascade.training.settings import TrainingSettings

PACKAGES = ("cascade-diffusion", "torch", "diffusers", "accelerate")


class _Stage(TypedDict):
    takes: str
    gives: str
    network: str
    parameters: int
    prediction: str


class _Data(TypedDict):
    images: int
    classes: dict[str, dict[str, int]]


class _Part(TypedDict):
    from_images: int
    started: str
    command: str
    hardware: str
    versions: dict[str, str]
    settings: dict[str, Any]
    changes: list[str]


class _About(TypedDict, total=False):
    """The entries of `about.json` that its readers rely on."""

    id: str
    stage: _Stage
    grid: list[str]
    data: _Data
    parts: list[_Part]
    broken: list[str]


def read_about(folder: Path) -> dict[str, Any]:
    """Read the facts about a run; empty if the file is missing, unreadable or of another form."""
    try:
        about = read_json(folder / "about.json")
        TypeAdapter(_About).validate_python(about, strict=True)
    except (WeightsError, ValidationError):
        return {}
    return about


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write the facts about a run.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_file(folder / "about.json") as temporary:
        temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")


def begin_part(
    about: dict[str, Any],
    stage: Stage,
    images: TrainingImages,
    settings: TrainingSettings,
    *,
    images_seen: int,
    hardware: str,
) -> dict[str, Any]:
    """Add the part of a run that begins now to the facts about the run.

    Args:
        about: the facts from `read_about`; empty for a new run.
        stage: the stage in training.
        images: the training images.
        settings: settings of the run.
        images_seen: number of images seen when the part begins.
        hardware: devices of the run, in words.

    Returns:
        The facts with the new part, without parts that ended before their first checkpoint.
    """
    part = {
        "from_images": images_seen,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "hardware": hardware,
        "versions": versions(),
        "settings": asdict(settings),
        "changes": changed_settings(about, settings),
    }
    earlier = [part for part in about.get("parts", []) if part["from_images"] < images_seen]
    return {
        "id": about.get("id") or secrets.token_hex(6),
        "stage": describe_stage(stage),
        "grid": grid_columns(stage),
        "data": describe_data(images),
        "parts": [*earlier, part],
    }


def changed_settings(about: Mapping[str, Any], settings: TrainingSettings) -> list[str]:
    """The settings that differ from those of the run's last part, in words.

    Args:
        about: the facts from `read_about`; empty for a new run.
        settings: settings of the run.
    """
    parts = about.get("parts", [])
    if not parts:
        return []
    return [each.as_change() for each in differences(parts[-1]["settings"], asdict(settings))]


def describe_stage(stage: Stage) -> dict[str, Any]:
    """Describe a stage: its input and results, its network, parameters and prediction."""
    summary = stage.summary()
    return {
        "takes": summary.starts_from,
        "gives": summary.gives,
        "network": summary.network,
        "parameters": summary.parameters,
        "prediction": summary.predicts,
    }


def describe_data(images: TrainingImages) -> dict[str, Any]:
    """Count the images, and those of each class in the label fields of the stage."""
    conditions = images.contract.conditions
    fields = [field for condition in conditions for field in condition.classes]
    if isinstance(images.source, TensorSource):  # its labels come with the images
        fields = []
    return {"images": len(images.source), "classes": count_classes(images.source, fields)}


def count_classes(source: ImageSource, fields: list[str]) -> dict[str, dict[str, int]]:
    """How many images each name of each label field has, sorted by name."""
    counts: dict[str, Counter[str]] = {field: Counter() for field in fields}
    for index in range(len(source) if fields else 0):
        labels = source.readable_labels(index)
        for field in fields:
            if field in labels:
                counts[field][labels[field]] += 1
    return {field: dict(sorted(by_name.items())) for field, by_name in counts.items()}


def command_line() -> str:
    """The command that started this process, quoted for a shell, without the keys of URLs."""
    program = Path(sys.argv[0])
    name = "cascade" if program.name in ("cascade", "__main__.py", "main.py") else program.name
    return without_secrets(shlex.join([name, *sys.argv[1:]]))


def hardware(device: torch.device | None = None, processes: int = 1) -> str:
    """The devices of all processes, and the processor, in words.

    Args:
        device: device of this process; None for the best one.
        processes: number of processes.
    """
    device = device or best_device()
    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name(device)} ({cores})"
    several = f"{processes} processes on " if processes > 1 else ""
    return f"{several}{'CPU' if device.type == 'cpu' else device.type} ({cores})"


def versions() -> dict[str, str]:
    """The versions of the packages that determine the result, of Python and of the platform."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            packages[name] = "not installed"
    return packages | {"python": platform.python_version(), "platform": platform.platform()}
