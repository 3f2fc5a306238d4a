"""The progress that evaluations and sweeps report while they run."""

from __future__ import annotations

from collections.abc import Callable

NamedProgress = Callable[[str, int, int], None]  # (what is being done, done, total)


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""
