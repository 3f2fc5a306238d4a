"""Puts training images together to batches, one process's share of them in order.

Shapes: see `cascade.conditioning.batch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cascade.conditioning.batch import Batch
from cascade.data.loading import load_in_order
from cascade.data.samples import TrainingSample
from cascade.data.training_images import TrainingImages
from cascade.errors import CascadeError, DataError, first_line


class PositionBatches(Sampler[list[int]]):
    """The positions of one process's batches, from a point in a run to its end.

    Args:
        start_images: number of images that the run has seen.
        end_images: number of images that the run sees in total.
        batch_size: number of images per step over all processes.
        rank: number of this process, from 0.
        processes: number of processes; it must divide the batch size.
    """

    def __init__(
        self,
        start_images: int,
        end_images: int,
        batch_size: int,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size % processes:
            raise DataError(
                f"batch_size {batch_size} must be a multiple of the {processes} processes."
            )
        self.start_images = start_images
        self.end_images = end_images
        self.batch_size = batch_size
        self.share = batch_size // processes
        self.rank = rank

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start_images, self.end_images, self.batch_size):
            mine = first + self.rank * self.share
            yield list(range(mine, mine + self.share))

    def __len__(self) -> int:
        return max(0, -(-(self.end_images - self.start_images) // self.batch_size))


class _Batches(Dataset[Batch | CascadeError]):
    """Batches by positions. It returns errors: a worker would add its traceback to raised ones."""

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def __getitem__(self, positions: list[int]) -> Batch | CascadeError:
        try:
            return collate([self.images[position] for position in positions])
        except CascadeError as error:
            return error
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            return DataError(f"the data cannot be loaded: {reason}.")


def load_batches(
    images: TrainingImages, positions: PositionBatches, *, workers: int = 0
) -> Iterator[Batch]:
    """Load batches in order, with any number of worker processes.

    Raises:
        DataError: if there are fewer images than a batch takes, or too many in a row are broken.
    """
    if len(images.source) < positions.batch_size:
        raise DataError(
            f"{len(images.source)} images are too few for a batch of {positions.batch_size}; add "
            "images or lower train.batch_size."
        )
    for batch in load_in_order(_Batches(images), positions, workers=workers):
        if isinstance(batch, CascadeError):
            raise batch
        yield batch


def collate(samples: list[TrainingSample]) -> Batch:
    """Stack samples into a batch."""
    names = samples[0].conditions
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        seeds=tuple(sample.seed for sample in samples),
        conditions={
            name: _joined([sample.conditions[name] for sample in samples]) for name in names
        },
        broken=tuple(dict.fromkeys(name for sample in samples for name in sample.broken)),
        remarks=tuple(dict.fromkeys(each for sample in samples for each in sample.remarks)),
        known=_known(samples),
    )


def _known(samples: Sequence[TrainingSample]) -> Tensor | None:
    """The masks (B, C, H, W) of a batch; None if no image has one."""
    if all(each.known is None for each in samples):
        return None
    masks = [each.known for each in samples]
    whole = torch.ones_like(samples[0].image, dtype=torch.bool)
    return torch.stack([whole if each is None else each for each in masks])


def _joined(entries: Sequence[Any]) -> Any:
    """The entries of a batch: one tensor (B, …), or a tuple for entries that are not tensors."""
    tensors = all(isinstance(each, torch.Tensor) for each in entries)
    return torch.stack(list(entries)) if tensors else tuple(entries)
