"""The part of a picture that a chain works on when it fills a hole.

A chain whose size is fixed sees as much of the picture around the hole as a window of its own shape
can hold, resized to its size. A chain of any size sees the hole and what is around it, at full
resolution. A window may reach beyond the picture; what is there is unknown too.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cascade.space import Size, Space


class Box(NamedTuple):
    """A rectangle in a picture, in pixels; it may reach beyond the picture."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def around(cls, hole: Tensor) -> Box:
        """The smallest box that holds a hole (H, W) bool of at least one pixel."""
        rows, columns = hole.any(dim=1).nonzero()[:, 0], hole.any(dim=0).nonzero()[:, 0]
        top, left = int(rows[0]), int(columns[0])
        return cls(top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)

    def inside(self, size_px: Size) -> tuple[slice, slice]:
        """Rows and columns of the picture that lie in the box."""
        bottom, right = self.top + self.height, self.left + self.width
        return (
            slice(max(0, self.top), min(size_px[0], bottom)),
            slice(max(0, self.left), min(size_px[1], right)),
        )

    def cut(self, image: Tensor, outside: float | bool) -> Tensor:
        """The part of an image (C, H, W) in the box, with a value outside the image."""
        rows, columns = self.inside((image.shape[-2], image.shape[-1]))
        part = torch.full((len(image), self.height, self.width), outside, dtype=image.dtype)
        part[:, self._own(rows, self.top), self._own(columns, self.left)] = image[:, rows, columns]
        return part

    def put(self, part: Tensor, size_px: Size) -> tuple[Tensor, slice, slice]:
        """The pixels of a part (…, height, width) inside the picture, with rows and columns."""
        rows, columns = self.inside(size_px)
        return part[..., self._own(rows, self.top), self._own(columns, self.left)], rows, columns

    @staticmethod
    def _own(span: slice, start: int) -> slice:
        return slice(span.start - start, span.stop - start)


@dataclass(frozen=True)
class Frame:
    """What decides the window of a chain.

    Attributes:
        space: space of the last stage.
        is_fixed: whether the chain makes images of that size only.
        multiple_px: sides of the window are multiples of this unless the size is fixed.
        window_px: longer side of the window that the user asks for; None for the usual one.
    """

    space: Space
    is_fixed: bool
    multiple_px: int = 1
    window_px: int | None = None

    def window(self, hole: Tensor) -> Box:
        """The window for a hole (H, W) bool of at least one pixel."""
        size_px, box = (hole.shape[0], hole.shape[1]), Box.around(hole)
        return self._fixed(size_px, box) if self.is_fixed else self._of_any_size(size_px, box)

    def _fixed(self, size_px: Size, box: Box) -> Box:
        unit = self.space.size
        if self.window_px is None:
            scale = min(side / own for side, own in zip(size_px, unit, strict=True))
        else:
            scale = self.window_px / self.space.longer_px
        scale = max(scale, box.height / unit[0], box.width / unit[1])
        sides = [math.ceil(own * scale - 1e-6) for own in unit]
        return _centred(box, (sides[0], sides[1]), size_px)

    def _of_any_size(self, size_px: Size, box: Box) -> Box:
        sides = []
        for length, side in zip((box.height, box.width), size_px, strict=True):
            wished = length + self.space.longer_px if self.window_px is None else self.window_px
            wished = max(min(wished, side), length)
            sides.append(math.ceil(wished / self.multiple_px) * self.multiple_px)
        return _centred(box, (sides[0], sides[1]), size_px)


def _centred(box: Box, sides: Size, size_px: Size) -> Box:
    """A box of these sides around another, inside the picture as far as it fits there."""
    starts = []
    for start, length, side, whole in zip(box[:2], box[2:], sides, size_px, strict=True):
        wished = start + length // 2 - side // 2
        # A side that is longer than the picture reaches beyond it at both ends.
        starts.append(
            min(max(wished, 0), whole - side) if side <= whole else -((side - whole) // 2)
        )
    return Box(starts[0], starts[1], sides[0], sides[1])
