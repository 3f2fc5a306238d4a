"""Lets a program look at the images of every step without taking part in the call.

A watcher belongs to the thread, or task, that sets it, so that no function between a program and
the sampling loop has to pass it on. It sees images and changes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

Watcher = Callable[[Tensor], None]
StepCallback = Callable[[int, int, dict[str, Tensor]], Mapping[str, Any] | None]
_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Show a watcher the images of every step in the `with` block.

    Args:
        watcher: called after every step with the images that it predicts, (B, C, H, W) in the range
            of the stage's space. An exception that it raises ends the sampling.
    """
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def with_watcher(callback: StepCallback | None) -> StepCallback | None:
    """The callback of a walk, which also serves this thread's watcher if there is one."""
    watcher = _WATCHER.get()
    if watcher is None:
        return callback

    def both(index: int, timestep: int, tensors: dict[str, Tensor]) -> Mapping[str, Any] | None:
        watcher(tensors["x0"])
        return None if callback is None else callback(index, timestep, tensors)

    return both
