"""Makes an enlarged image agree with the image that it was enlarged from.

Iterative back-projection (Irani & Peleg 1991): the enlarged image is made small again with the
stage's own kernel, and what is missing from the given small image is enlarged and added. What a
small image cannot show stays as the stage drew it.

Shapes: B batch, C channels, H and W pixels, h and w pixels of the small image.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.errors import ContractError
from cascade.resizing import ResizeKernel, resize

REACH_PX = 4  # small pixels that one round looks to each side: two down, two up again


def make_consistent(
    images: Tensor,
    low_res: Tensor,
    kernel: ResizeKernel,
    *,
    rounds: int = 6,
    band_px: int = 1024,
) -> Tensor:
    """Change images so that, made small, they are the given small images.

    Args:
        images: (B, C, H, W) in [-1, 1].
        low_res: (B, C, h, w) in [-1, 1]; H and W are h and w times one whole number.
        kernel: with which images are made small.
        rounds: of back-projection; each takes away most of what is left of the difference.
        band_px: rows of the large image that are worked on at a time, which bounds memory and does
            not change the result.

    Returns:
        (B, C, H, W) in [-1, 1]. Where colours would leave that range the small image is only
        approached.

    Raises:
        ContractError: if the sizes do not fit.
    """
    result = torch.empty_like(images)
    for rows, band in consistent_bands(images, low_res, kernel, rounds=rounds, band_px=band_px):
        result[..., rows, :] = band
    return result


def consistent_bands(
    images: Tensor,
    low_res: Tensor,
    kernel: ResizeKernel,
    *,
    rounds: int = 6,
    band_px: int = 1024,
) -> Iterator[tuple[slice, Tensor]]:
    """The same, a band of rows at a time, for images that are too large to have twice.

    Args:
        images: as for `make_consistent`; rows that were given out may be overwritten at once.
        low_res: as there.
        kernel: as there.
        rounds: as there.
        band_px: rows of a band.

    Yields:
        The rows and their images (B, C, rows, W), from the top.

    Raises:
        ContractError: if the sizes do not fit.
    """
    scale = images.shape[-2] // low_res.shape[-2]
    if scale < 1 or tuple(images.shape[-2:]) != tuple(n * scale for n in low_res.shape[-2:]):
        raise ContractError(
            f"images of {tuple(images.shape[-2:])} px are not {tuple(low_res.shape[-2:])} px "
            "enlarged by a whole number."
        )
    small_rows, margin = low_res.shape[-2], REACH_PX * rounds
    above, top = images[..., :0, :], 0  # rows as they were, from `top` to where the band begins
    for first in range(0, small_rows, max(1, band_px // scale)):
        last = min(small_rows, first + max(1, band_px // scale))
        bottom = min(small_rows, last + margin)
        region = torch.cat([above, images[..., first * scale : bottom * scale, :]], dim=-2)
        band = _back_project(region, low_res[..., top:bottom, :], kernel, rounds)
        inner = band[..., (first - top) * scale : (last - top) * scale, :]
        start = max(0, last - margin)
        above = region[..., (start - top) * scale : (last - top) * scale, :].clone()
        top = start
        yield slice(first * scale, last * scale), inner


def _back_project(images: Tensor, low_res: Tensor, kernel: ResizeKernel, rounds: int) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    if tuple(low_res.shape[-2:]) == size:
        return low_res
    for _ in range(rounds):
        small = resize(images, (low_res.shape[-2], low_res.shape[-1]), kernel)
        missing = F.interpolate(low_res - small, size=size, mode="bicubic")
        images = (images + missing).clamp(-1, 1)
    return images
