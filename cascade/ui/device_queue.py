"""Lets one job at a time work on the device; the others wait for their turn, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cascade.errors import ContractError

LOOK_S = 0.2  # between looks at whether a waiting job was cancelled


class DeviceQueue:
    """The jobs that use a device, first come, first served.

    Args:
        most_waiting: largest number of jobs that wait.
    """

    def __init__(self, most_waiting: int = 20) -> None:
        self._most_waiting = most_waiting
        self._turns: list[object] = []
        self._changed = threading.Condition()

    def place(self, job: object) -> int:
        """The number of jobs before a job; 0 if it is its turn, or if it does not wait."""
        with self._changed:
            return self._turns.index(job) if job in self._turns else 0

    def join(self, job: object) -> None:
        """Queue up.

        Raises:
            ContractError: if too many jobs wait.
        """
        with self._changed:
            if len(self._turns) > self._most_waiting:
                raise ContractError(
                    f"{self._most_waiting} jobs are waiting already; try again later."
                )
            self._turns.append(job)

    @contextmanager
    def turn(self, job: object, check: Callable[[], None]) -> Iterator[None]:
        """Wait for the turn of a job that has joined, and hold the device in the `with` block.

        Args:
            job: the job.
            check: called while it waits; what it raises ends the waiting.
        """
        try:
            with self._changed:
                while self._turns[0] is not job:
                    check()
                    self._changed.wait(LOOK_S)
            check()
            yield
        finally:
            with self._changed:
                self._turns.remove(job)
                self._changed.notify_all()
