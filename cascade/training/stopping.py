"""Ends a run on signals: the first one asks for an orderly end, a second Ctrl-C interrupts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signal(request_stop: Callable[[], bool]) -> Iterator[None]:
    """Handle SIGTERM and Ctrl-C inside the block.

    Args:
        request_stop: asks the run to stop after the current step; returns whether it was already
            asked to.

    Raises:
        KeyboardInterrupt: on Ctrl-C, if the run was already asked to stop.
    """

    def handle(number, frame) -> None:
        if request_stop() and number == signal.SIGINT:
            raise KeyboardInterrupt

    try:
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
    except ValueError:  # only the main thread can handle signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
