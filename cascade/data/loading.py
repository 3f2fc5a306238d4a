"""Loading in a known order, with any number of worker processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from cascade.errors import DataError

Item = TypeVar("Item")


def load_in_order(dataset: Dataset[Item], order: Iterable[Any], *, workers: int) -> Iterator[Item]:
    """Give the items of a data set, each as the data set makes it.

    Args:
        dataset: indexed by what `order` holds.
        order: of the items.
        workers: processes that load ahead; 0 loads in this one.

    Raises:
        DataError: if a worker was killed.
    """
    loader: Iterable[Item] = DataLoader(
        dataset,
        sampler=order,  # pyright: ignore[reportArgumentType]  any iterable does
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_run,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a data worker was killed, often for lack of memory; use fewer workers or lower "
            "data.cache_mib."
        ) from error


def _as_it_is(item: Item) -> Item:
    return item


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the workers too, which must live until the save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
