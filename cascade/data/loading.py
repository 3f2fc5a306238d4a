"""Loads the items of a data set in a given order, with any number of worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from cascade.errors import DataError

Item = TypeVar("Item")


def load_in_order(dataset: Dataset[Item], order: Iterable[Any], *, workers: int) -> Iterator[Item]:
    """Yield the items of a data set, unchanged.

    Args:
        dataset: anything that can be indexed by the elements of `order`.
        order: the indices to load, one after another.
        workers: number of processes that load ahead; 0 loads in this one.

    Raises:
        DataError: if a worker was killed.
    """
    loader: Iterable[Item] = DataLoader(
        dataset,
        sampler=order,  # pyright: ignore[reportArgumentType]  any iterable works
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_signals,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a data worker was killed, often for lack of memory; use fewer workers or lower "
            "cache_mib."
        ) from error


def _unchanged(item: Item) -> Item:
    return item


def _ignore_signals(worker: int) -> None:
    """Let the main process handle signals.

    Ctrl-C and a scheduler's SIGTERM reach the workers too, but these must live until the run has
    saved its state.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
