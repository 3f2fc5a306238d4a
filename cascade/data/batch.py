"""One training batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images and what belongs to them.

    Attributes:
        images: (B, C, H, W) in [-1, 1], at the stage's size or a crop of it.
        seeds: one per image; all randomness of its loss comes from it.
        labels: (B, F) int64, -1 where unknown; None for a stage without labels.
        low_res: (B, C, h, w) in [-1, 1], the same crop at low resolution; None for a base stage, or
            to have the stage make it from `images`.
        broken: images that could not be used, as `name: reason`; others stand in their place.
    """

    images: Tensor
    seeds: tuple[int, ...]
    labels: Tensor | None = None
    low_res: Tensor | None = None
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device) -> Batch:
        """The same batch with its tensors on another device."""
        moved = {
            name: None if tensor is None else tensor.to(device, non_blocking=True)
            for name, tensor in (
                ("images", self.images),
                ("labels", self.labels),
                ("low_res", self.low_res),
            )
        }
        return replace(self, **moved)

    def parts(self, count: int) -> list[Batch]:
        """Cut the batch into at most `count` parts of the same size; the last may be smaller.

        What is broken is told by the whole batch only.
        """
        size = math.ceil(len(self) / count)
        return [self._cut(slice(first, first + size)) for first in range(0, len(self), size)]

    def _cut(self, chosen: slice) -> Batch:
        return Batch(
            images=self.images[chosen],
            seeds=self.seeds[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            low_res=None if self.low_res is None else self.low_res[chosen],
        )
