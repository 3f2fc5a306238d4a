"""Removes the half-written files of killed processes."""

from __future__ import annotations

from pathlib import Path

from cascade.bulk.jobs import Plan
from cascade.bulk.slider_page import page_file
from cascade.saving.atomic import remove_leftovers


def remove_leftovers_of(plan: Plan, *, is_part: bool) -> None:
    """Remove half-written results and sheets, and the page, while no other process is at work.

    Args:
        plan: everything that this process and the others make.
        is_part: whether these are parts of the inputs, so that other parts may write the page.
    """
    paths = [path for path, _ in plan.files()]
    paths += [] if plan.page is None or is_part else [page_file(plan.page)]
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, outputs in names.items():
        remove_leftovers(folder, outputs)
