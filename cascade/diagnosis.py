"""Inspects the machine: versions, device, memory and extras, and what they mean for the user."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch

from cascade.devices import best_device, has_fast_bf16
from cascade.extras import DEVELOPERS, EXTRAS, install_command
from cascade.recipe.finding import list_recipes
from cascade.reporting.words import counted
from cascade.saving.chain_folder import saved_contracts
from cascade.saving.pipelines import has_weights
from cascade.tasks.table import find_task


class Finding(NamedTuple):
    """One line of the diagnosis.

    Attributes:
        subject: what was inspected, such as `memory`.
        value: what it is, such as `32 GiB`.
        meaning: what that means for the user; may be empty.
    """

    subject: str
    value: str
    meaning: str


def diagnose(*, developers: bool = True) -> list[Finding]:
    """Inspect versions, device, precision, memory, extras and bundled weights.

    Args:
        developers: whether to list the extras that only developers of Cascade need, after those of
            users.
    """
    device = best_device()
    findings = [
        Finding("python", platform.python_version(), ""),
        *(
            Finding(name, importlib.metadata.version(name), "")
            for name in ("torch", "diffusers", "accelerate")
        ),
        _device(device),
        _precision(device),
    ]
    memory = _memory_gib()
    if memory:
        enough = memory >= 4
        meaning = "enough for the bundled pipelines" if enough else "low: use a batch size of 1"
        findings.append(Finding("memory", f"{memory:.0f} GiB", meaning))
    findings += [_extra(name) for name in EXTRAS if developers or name not in DEVELOPERS]
    return [*findings, *_weights()]


def _memory_gib() -> float:
    """Total memory of the machine; 0 if unknown."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 0.0


def _device(device: torch.device) -> Finding:
    if device.type == "cpu":
        threads = f"cpu, {counted(torch.get_num_threads(), 'thread')}"
        return Finding("device", threads, "fine for generating; train small stages only")
    count = torch.accelerator.device_count()
    return Finding("device", f"{count} x {device.type}", "used automatically")


def _precision(device: torch.device) -> Finding:
    if has_fast_bf16(device):
        return Finding("bf16", "in hardware", "precision auto means bf16")
    return Finding("bf16", "not in hardware", "precision auto means fp32")


def _extra(name: str) -> Finding:
    extra, subject = EXTRAS[name], f"extra [{name}]"
    if extra.is_installed:
        return Finding(subject, "installed", extra.purpose)
    return Finding(subject, "missing", f"{extra.purpose}: {install_command(name)}")


def _weights() -> list[Finding]:
    folders = [path.parent for path in list_recipes("pipelines") if has_weights(path.parent)]
    return [Finding("weights", folder.name, _example(folder)) for folder in folders]


def _example(folder: Path) -> str:
    """A command that uses a bundled pipeline."""
    task = find_task(saved_contracts(folder / "stages"))
    return "" if task is None else task.command(folder.name)
