"""The one signature by which long-running work reports how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Any function that takes a task, the steps done and the steps in all.

    Work that takes long calls it from time to time; a progress bar, a log or a test listens.
    """

    def __call__(self, task: str, done: int, total: int, /) -> None:
        """Report progress.

        Args:
            task: what is being done, such as `reading images`; each task gets its own bar.
            done: steps finished, from 0 to `total`.
            total: steps in all, at least 1.
        """
        ...
