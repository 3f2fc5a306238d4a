"""Where overlapping tiles lie along an axis, and the weights that blend them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """The extent of one tile along an axis, and its blending weights.

    Attributes:
        start: its first pixel.
        stop: the pixel after its last.
        weight: (stop - start,) in (0, 1]; the weights of all spans sum to 1 at every pixel.
    """

    start: int
    stop: int
    weight: Tensor

    @property
    def pixels(self) -> slice:
        """The extent as a slice."""
        return slice(self.start, self.stop)


def spans(length_px: int, tile_px: int, overlap_px: int, multiple_px: int) -> list[Span]:
    """Cover an axis evenly with tiles of one size that start on a grid.

    Args:
        length_px: length of the axis, a multiple of `multiple_px`.
        tile_px: side of a tile, a multiple of `multiple_px`.
        overlap_px: least overlap of neighbours, below `tile_px`; the grid may take up to one
            `multiple_px` of it.
        multiple_px: spacing of the grid.

    Returns:
        The tiles in order; a single one if the axis is no longer than a tile.
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
    """A tile's weight before normalisation: raised cosines where neighbours overlap, else 1."""
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
