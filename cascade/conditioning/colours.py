"""Gives an upscaled image the colours of the low-resolution image that it was made from.

A network of few steps may shift colours. Here block means are compared and their difference,
interpolated, is added, as the colour fix of StableSR does with a wavelet's coarsest level (Wang et
al. 2023, arXiv 2305.07015). Detail within a block stays as it is: unlike back-projection onto every
pixel (`consistency.py`), this does not bring back the errors and the blur of a generated
low-resolution image.

Shapes: B batch, C channels, H and W pixels of the upscaled image, h and w of the low-resolution
image; M and N blocks along the axes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.errors import ContractError
from cascade.mapped_arrays import NUMBERS_AT_ONCE, release_pages

BLOCK_PX = 8  # of the low-resolution image; smaller blocks bring its errors back
ROUNDS = 8  # each leaves at most three quarters of the error of whole blocks


def with_colours_of(low_res: Tensor, images: Tensor, *, unchanged: Tensor | None = None) -> Tensor:
    """Give images the mean colours of low-resolution images, over blocks of 8x8 of their pixels.

    Args:
        low_res: (B, C, h, w) in [-1, 1].
        images: (B, C, H, W) in [-1, 1], h and w times the same whole number. They are changed in
            place, in bands of rows that bound the memory.
        unchanged: bool mask (H, W) or (B, H, W), or of fewer or more rows and columns from the top
            left, True at pixels that must not change; None for none.

    Returns:
        `images`, in [-1, 1]. Where the right mean would leave [-1, 1], it is only approached.

    Raises:
        ContractError: if the sizes do not fit.
    """
    height, width = images.shape[-2:]
    scale = height // low_res.shape[-2]
    if scale < 1 or (height, width) != tuple(side * scale for side in low_res.shape[-2:]):
        raise ContractError(
            f"images of {(height, width)} px are not {tuple(low_res.shape[-2:])} px upscaled by a "
            "whole number."
        )
    side = BLOCK_PX * scale
    wrong = _means(low_res.to(images), BLOCK_PX) - _means(images, side)
    correction = _deconvolved(wrong, *low_res.shape[-2:])
    above_below = F.pad(correction, (0, 0, 1, 1), mode="replicate")
    for first, last in _bands(correction.shape[-2], images, side):
        rows = slice(first * side, min(last * side, height))
        smooth = F.interpolate(above_below[..., first : last + 2, :], scale_factor=side, **_SMOOTH)
        smooth = smooth[..., side : side + rows.stop - rows.start, :width]
        if unchanged is not None:
            smooth = smooth.masked_fill(_part_of(unchanged, rows, width).to(smooth.device), 0)
        band = images[..., rows, :]
        images[..., rows, :] = (band + smooth).clamp(-1, 1)
        release_pages()
    return images


_SMOOTH = {"mode": "bilinear", "align_corners": False}


def _means(images: Tensor, side: int) -> Tensor:
    """The means over blocks (B, C, M, N); blocks at the ends may be smaller."""
    parts = []
    for first, last in _bands(-(-images.shape[-2] // side), images, side):
        rows = images[..., first * side : last * side, :]
        parts.append(F.avg_pool2d(rows, side, ceil_mode=True, count_include_pad=False))
        release_pages()
    return torch.cat(parts, dim=-2)


def _bands(blocks: int, images: Tensor, side: int) -> Iterator[tuple[int, int]]:
    """First and last block, exclusive, of the rows that are worked on together."""
    numbers = images[..., 0, :].numel() * side  # of one row of blocks
    count = max(1, NUMBERS_AT_ONCE // 4 // numbers)
    for first in range(0, blocks, count):
        yield first, min(blocks, first + count)


def _deconvolved(means: Tensor, height: int, width: int) -> Tensor:
    """Values on the grid of blocks whose interpolation has these means over blocks.

    Args:
        means: (B, C, M, N).
        height: rows of the image that has these blocks; the last ones may be smaller.
        width: its columns.
    """
    rows, columns = (_interpolated_means(side).to(means) for side in (height, width))
    values = means
    for _ in range(ROUNDS):
        values = values + means - rows @ values @ columns.T
    return values


def _interpolated_means(side: int) -> Tensor:
    """The matrix (M, M) from values along an axis to the means of their linear interpolation.

    A whole block has three quarters of its own value and an eighth of either neighbour's.
    """
    values = torch.eye(-(-side // BLOCK_PX))[None]
    smooth = F.interpolate(values, scale_factor=BLOCK_PX, mode="linear", align_corners=False)
    smooth = smooth[..., :side]
    return F.avg_pool1d(smooth, BLOCK_PX, ceil_mode=True, count_include_pad=False)[0].T


def _part_of(mask: Tensor, rows: slice, width: int) -> Tensor:
    """Rows of a mask as (B or 1, 1, rows, width); False beyond its ends."""
    part = (mask if mask.ndim == 3 else mask[None])[:, None, rows, :width]
    missing = rows.stop - rows.start - part.shape[-2], width - part.shape[-1]
    return F.pad(part, (0, missing[1], 0, missing[0]))
