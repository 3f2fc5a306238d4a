"""One training batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """True images, and what the data hold for the conditions of a stage.

    Attributes:
        images: (B, C, H, W) in [-1, 1], at the stage's size or a crop of it.
        seeds: one per image; everything that its loss draws comes from it.
        conditions: tensors (B, …) by the name of the condition that they belong to, such as label
            indices (B, F) under `labels`. A condition makes what is missing from `images`, if it
            can.
        broken: unusable images as `name: reason`; other images take their place in the batch.
    """

    images: Tensor
    seeds: tuple[int, ...]
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Copy the tensors to another device."""
        return Batch(
            images=self.images.to(device, non_blocking=True),
            seeds=self.seeds,
            conditions={
                name: each.to(device, non_blocking=True) for name, each in self.conditions.items()
            },
            broken=self.broken,
        )

    def parts(self, count: int) -> list[Batch]:
        """Cut the batch into at most `count` parts of one size; the last one may be smaller.

        Only the whole batch lists broken images.
        """
        size = math.ceil(len(self) / count)
        return [self._cut(slice(first, first + size)) for first in range(0, len(self), size)]

    def _cut(self, places: slice) -> Batch:
        return Batch(
            images=self.images[places],
            seeds=self.seeds[places],
            conditions={name: each[places] for name, each in self.conditions.items()},
        )
