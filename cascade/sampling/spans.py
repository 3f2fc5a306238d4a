"""Where overlapping tiles lie along an axis, and the weights with which they are blended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile's extent along an axis, with its blending weights there.

    Attributes:
        start: first pixel.
        stop: the pixel after the last.
        weight: (stop - start,) in (0, 1]; those of all spans sum to 1 at every pixel.
    """

    start: int
    stop: int
    weight: Tensor

    @property
    def pixels(self) -> slice:
        """The extent as a slice."""
        return slice(self.start, self.stop)


def spans(length_px: int, tile_px: int, overlap_px: int, multiple_px: int) -> list[Span]:
    """Cover a length with tiles of one size, evenly, on a grid.

    Args:
        length_px: of the axis, a multiple of the grid.
        tile_px: of a tile, a multiple of the grid.
        overlap_px: the least by which neighbours overlap; less than a tile.
        multiple_px: of the grid.

    Returns:
        The tiles in order; one that covers all if the length is no more than a tile.
    """
    if length_px <= tile_px:
        return [Span(0, length_px, torch.ones(length_px))]
    count = math.ceil((length_px - overlap_px) / (tile_px - overlap_px))
    free = (length_px - tile_px) // multiple_px
    starts = [multiple_px * round(free * number / (count - 1)) for number in range(count)]
    raw = [_ramps(start, tile_px, starts) for start in starts]
    total = torch.zeros(length_px)
    for start, weight in zip(starts, raw, strict=True):
        total[start : start + tile_px] += weight
    return [
        Span(start, start + tile_px, weight / total[start : start + tile_px])
        for start, weight in zip(starts, raw, strict=True)
    ]


def _ramps(start: int, tile_px: int, starts: Sequence[int]) -> Tensor:
    """A tile's weight before it is made to sum to one: raised cosines where neighbours overlap."""
    place = starts.index(start)
    weight = torch.ones(tile_px)
    if place > 0:
        weight *= _rise(starts[place - 1] + tile_px - start, tile_px)
    if place < len(starts) - 1:
        weight *= _rise(start + tile_px - starts[place + 1], tile_px).flip(0)
    return weight


def _rise(overlap_px: int, tile_px: int) -> Tensor:
    ramp = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(overlap_px) + 0.5) / overlap_px)
    return torch.cat([ramp, torch.ones(tile_px - overlap_px)])
