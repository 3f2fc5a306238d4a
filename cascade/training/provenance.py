"""What a run was made by: command, versions, hardware, data. Kept as `about.json` in its folder."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import shlex
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from cascade.data.remote import without_secrets
from cascade.data.source import ImageSource
from cascade.data.training_images import TrainingImages
from cascade.errors import WeightsError
from cascade.saving.atomic import atomic_file
from cascade.saving.components import read_json
from cascade.stage import Stage
from cascade.training.grids import grid_columns

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


class _About(TypedDict, total=False):
    """What readers of `about.json` rely on."""

    id: str
    stage: _Stage
    grid: list[str]
    data: _Data
    parts: list[_Part]
    broken: list[str]


def read_about(folder: Path) -> dict[str, Any]:
    """What is known of a run; empty if nothing can be read, or it is not as it was written."""
    try:
        about = read_json(folder / "about.json")
        TypeAdapter(_About).validate_python(about, strict=True)
    except (WeightsError, ValidationError):
        return {}
    return about


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Keep what is known of a run.

    Raises:
        OutputError: if it cannot be written.
    """
    with atomic_file(folder / "about.json") as temporary:
        temporary.write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")


def begin_part(
    about: dict[str, Any], stage: Stage, images: TrainingImages, *, images_seen: int, processes: int
) -> dict[str, Any]:
    """Add the part of a run that begins now to what is known of the run.

    Args:
        about: what was known before; empty for a new run.
        stage: that is trained.
        images: that it is trained on.
        images_seen: where the part begins.
        processes: how many take part.
    """
    part = {
        "from_images": images_seen,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "hardware": hardware(processes),
        "versions": versions(),
    }
    earlier = [part for part in about.get("parts", []) if part["from_images"] < images_seen]
    return {
        "id": about.get("id") or secrets.token_hex(6),
        "stage": describe_stage(stage),
        "grid": grid_columns(stage),
        "data": describe_data(images),
        "parts": [*earlier, part],
    }


def describe_stage(stage: Stage) -> dict[str, Any]:
    """Describe a stage: what it takes and gives, its network, parameters and prediction."""
    summary = stage.summary()
    return {
        "takes": summary.takes,
        "gives": summary.gives,
        "network": summary.network,
        "parameters": summary.parameters,
        "prediction": summary.predicts,
    }


def describe_data(images: TrainingImages) -> dict[str, Any]:
    """Number of images, and of each class of the fields that the stage is conditioned on."""
    conditions = images.contract.conditions
    fields = [field for condition in conditions for field in condition.annotation_fields]
    return {"images": len(images.source), "classes": count_classes(images.source, fields)}


def count_classes(source: ImageSource, fields: list[str]) -> dict[str, dict[str, int]]:
    """How many images each name of each label field has, sorted by name."""
    counts: dict[str, Counter[str]] = {field: Counter() for field in fields}
    for index in range(len(source) if fields else 0):
        labels = source.readable_labels(index)
        for field in fields:
            if field in labels:
                counts[field][labels[field]] += 1
    return {field: dict(sorted(found.items())) for field, found in counts.items()}


def command_line() -> str:
    """What was typed, for a shell, without the keys of URLs."""
    program = Path(sys.argv[0])
    name = "cascade" if program.name in ("cascade", "__main__.py", "main.py") else program.name
    return without_secrets(shlex.join([name, *sys.argv[1:]]))


def hardware(processes: int = 1) -> str:
    """Devices of all processes, and the processor."""
    cores = f"{platform.machine()}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        return f"{processes} x {torch.cuda.get_device_name()} ({cores})"
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    several = f"{processes} processes on " if processes > 1 else ""
    return f"{several}{device.type if device else 'CPU'} ({cores})"


def versions() -> dict[str, str]:
    """Of what the result depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout
            found[name] = "not installed"
    return found | {"python": platform.python_version(), "platform": platform.platform()}
