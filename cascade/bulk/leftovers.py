"""Removes the half-written files of killed processes."""

from __future__ import annotations

from pathlib import Path

from cascade.bulk.jobs import Plan
from cascade.bulk.slider_page import page_file
from cascade.saving.atomic import remove_leftovers


def remove_leftovers_of(plan: Plan) -> None:
    """Remove half-written results, sheets and pages, while no other process is at work."""
    paths = [path for path, _ in plan.files()]
    paths += [] if plan.page is None else [page_file(plan.page)]
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, outputs in names.items():
        remove_leftovers(folder, outputs)
