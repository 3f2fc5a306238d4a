"""Where overlapping tiles lie along an axis, and the weights that blend them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.space import Size


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
    count = tile_count(length_px, tile_px, overlap_px)
    if count == 1:
        return [Span(0, length_px, torch.ones(length_px))]
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


def fitted_tile(size_px: Size, largest_px: int, overlap_px: int, multiple_px: int) -> Size:
    """Height and width of the tiles that cover a canvas with the fewest pixels in all.

    Args:
        size_px: height and width of the canvas, multiples of `multiple_px`.
        largest_px: a tile has at most as many pixels as a square of this side, and its sides are at
            least half as long, unless the canvas is smaller. A multiple of `multiple_px`.
        overlap_px: least overlap of neighbours, below `largest_px`.
        multiple_px: the sides of a tile are multiples of this number of pixels.
    """
    height, width = size_px
    fits = []
    for rows in range(1, height // multiple_px + 1):
        tall = _side(height, rows, overlap_px, multiple_px)
        if rows > 1 and 2 * tall < largest_px:
            break
        widest = min(largest_px**2 // tall // multiple_px * multiple_px, width)
        if widest < width and (widest <= overlap_px or 2 * widest < largest_px):
            continue
        columns = tile_count(width, widest, overlap_px)
        wide = _side(width, columns, overlap_px, multiple_px)
        if columns == 1 or 2 * wide >= largest_px:
            fits.append((rows * tall * columns * wide, abs(tall - wide), (tall, wide)))
    return min(fits)[-1]


def tile_count(length_px: int, tile_px: int, overlap_px: int) -> int:
    """The number of tiles of a side that cover an axis."""
    if length_px <= tile_px:
        return 1
    return math.ceil((length_px - overlap_px) / (tile_px - overlap_px))


def _side(length_px: int, count: int, overlap_px: int, multiple_px: int) -> int:
    """The least side of `count` tiles that cover an axis."""
    return math.ceil((length_px + (count - 1) * overlap_px) / count / multiple_px) * multiple_px


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
