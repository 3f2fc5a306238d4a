"""One training batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Remark(NamedTuple):
    """Something about one image that is no fault but that the user should know.

    Attributes:
        kind: ends "N images …", such as "too small, left out".
        text: `name: what happened to it`.
    """

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training images, and the data of a stage's conditions.

    Attributes:
        images: (B, C, H, W) in [-1, 1], at the stage's size or cropped from it.
        seeds: B whole numbers; all random draws in an image's loss come from its seed.
        conditions: tensors (B, …) or tuples of B entries by the name of their condition, such as
            label indices (B, F) under `labels`, or a tuple of phrasings for each image under
            `text`. A condition that is not listed makes its tensor from `images` if it can.
        broken: images that could not be read, as `name: reason`; others replace them in the batch.
        remarks: remarks about images of the batch, and about those that were left out before them.
        shared: what one condition computed for the conditions after it, by a name that both know.
        known: (B, C, H, W) bool, False at values that the files lack, which are filled in `images`
            and which losses and figures leave out; None if no file lacks any.
    """

    images: Tensor
    seeds: tuple[int, ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    shared: dict[str, Any] = field(default_factory=dict, compare=False)
    known: Tensor | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on another device."""
        return Batch(
            images=self.images.to(device, non_blocking=True),
            seeds=self.seeds,
            conditions={
                name: each.to(device, non_blocking=True) if isinstance(each, Tensor) else each
                for name, each in self.conditions.items()
            },
            broken=self.broken,
            remarks=self.remarks,
            known=None if self.known is None else self.known.to(device, non_blocking=True),
        )

    def parts(self, count: int) -> list[Batch]:
        """Cut the batch into at most `count` parts of equal size; the last one may be smaller.

        The parts list no broken images and no remarks.
        """

        size = math.ceil(len(self) / count)
        return [self._cut(slice(first, first + size)) for first in range(0, len(self), size)]

    def first(self, count: int) -> Batch:
        """At most `count` images from the start of the batch, which list nothing broken."""
        return self._cut(slice(0, count))

    def _cut(self, places: slice) -> Batch:
        return Batch(
            images=self.images[places],
            seeds=self.seeds[places],
            conditions={name: each[places] for name, each in self.conditions.items()},
            known=None if self.known is None else self.known[places],
        )
