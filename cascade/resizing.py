"""Resizing and rounding images: one antialiased kernel per name, the same in training and sampling.

Shapes: B images, C channels, h and w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ResizeKernel = Literal["bicubic", "bilinear", "area"]
KERNEL_RADIUS_PX = {"bicubic": 2, "bilinear": 1}  # in pixels of the smaller of both images


def resize(images: Tensor, size_px: tuple[int, int], kernel: ResizeKernel) -> Tensor:
    """Resize with an antialiased kernel.

    Args:
        images: (B, C, h, w) in [-1, 1].
        size_px: height and width of the result.
        kernel: `area` averages whole blocks when it downscales by a whole factor, and repeats
            pixels when it upscales.

    Returns:
        (B, C, *size_px), clamped to [-1, 1] because bicubic overshoots.
    """
    if tuple(images.shape[-2:]) == tuple(size_px):
        return images
    if kernel == "area":
        return F.interpolate(images, size=size_px, mode="area")
    if size_px[1] == 1 < size_px[0]:  # torch 2.14 gives every row of a column the first value
        return resize(images.transpose(-2, -1), (1, size_px[0]), kernel).transpose(-2, -1)
    return F.interpolate(images, size=size_px, mode=kernel, antialias=True).clamp(-1, 1)


def resized_known(known: Tensor, size_px: tuple[int, int], kernel: ResizeKernel) -> Tensor:
    """Which values of a resized image come from known ones alone.

    Args:
        known: (…, h, w) bool, True at the known values of the image.
        size_px: height and width of the result.
        kernel: the kernel that `resize` takes for the image.

    Returns:
        (…, *size_px) bool, False where an unknown value lies within the reach of the kernel.
    """
    rows = _without_unknown(known.transpose(-2, -1), size_px[0], kernel).transpose(-2, -1)
    return _without_unknown(rows, size_px[1], kernel)


def _without_unknown(known: Tensor, size_px: int, kernel: ResizeKernel) -> Tensor:
    """`resized_known` along the last dimension: (…, n) to (…, size_px)."""
    pixels = known.shape[-1]
    if pixels == size_px:
        return known
    scale = pixels / size_px
    # How far the centre of a source pixel that counts is from that of the result's pixel: the
    # kernels' weights are 0 from there on, and `area` takes each pixel that the block touches.
    reach_px = scale / 2 + 0.5
    if kernel != "area":
        reach_px = KERNEL_RADIUS_PX[kernel] * max(scale, 1) + 1e-3  # a weight of rounding counts
    centres = [(place + 0.5) * scale - 0.5 for place in range(size_px)]
    firsts = [max(0, math.floor(centre - reach_px) + 1) for centre in centres]
    ends = [min(pixels, math.ceil(centre + reach_px)) for centre in centres]
    before = F.pad((~known).cumsum(-1, dtype=torch.int32), (1, 0))  # unknown values before each
    first, end = (torch.tensor(each, device=known.device) for each in (firsts, ends))
    return before.index_select(-1, end) == before.index_select(-1, first)


def quantise(images: Tensor, levels: int | Sequence[int] = 256) -> Tensor:
    """Round images to evenly spaced values from -1 to 1.

    Args:
        images: any shape, or (…, C, H, W) for several `levels`; values outside [-1, 1] are clamped.
        levels: number of values, at least 2; 256 gives those of an 8-bit file. Or one per channel.
    """
    if isinstance(levels, int):
        half: float | Tensor = (levels - 1) / 2
    else:
        counts = torch.tensor(levels, dtype=images.dtype, device=images.device)
        half = (counts[:, None, None] - 1) / 2  # (C, 1, 1)
    return ((images.clamp(-1, 1) + 1) * half).round() / half - 1


def upscaled_rows(
    images: Tensor,
    size_px: Sequence[int],
    rows: slice,
    *,
    first_row: int = 0,
    height_px: int | None = None,
) -> Tensor:
    """Upscale bilinearly, and return some rows of the result, to save memory.

    Where neighbouring pixels are equal, the result has exactly their value.

    Args:
        images: (B, C, h, w), or the rows of them that the result depends on.
        size_px: height H and width W of the whole result.
        rows: rows of the result, from `start` to `stop`.
        first_row: which row of the whole images the first one is.
        height_px: height h of the whole images; default: that of `images`.

    Returns:
        (B, C, rows, W).
    """
    height = height_px or images.shape[-2]
    y = _places(torch.arange(rows.start, rows.stop), height, size_px[0]) - first_row
    x = _places(torch.arange(size_px[1]), images.shape[-1], size_px[1])
    return _interpolated(_interpolated(images, y, -2), x, -1)


def _places(pixels: Tensor, source_px: int, size_px: int) -> Tensor:
    """Where the centres of a result's pixels lie among those of its source, inside the borders."""
    return ((pixels + 0.5) * (source_px / size_px) - 0.5).clamp(0, source_px - 1)


def _interpolated(images: Tensor, places: Tensor, dim: int) -> Tensor:
    """Interpolate linearly between pixels along a dimension, -2 or -1."""
    before = places.floor().long().clamp(max=images.shape[dim] - 1)
    after = (before + 1).clamp(max=images.shape[dim] - 1)
    weight = places - before
    first, second = (images.index_select(dim, index) for index in (before, after))
    return torch.lerp(first, second, weight[:, None] if dim == -2 else weight)
