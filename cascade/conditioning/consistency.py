"""Makes an enlarged image agree with the image that it was enlarged from.

Iterative back-projection (Irani & Peleg 1991): the enlarged image is made small again with the
stage's own kernel, and what is missing from the given small image is enlarged and added. What a
small image cannot show stays as the stage drew it.

Shapes: B batch, C channels, H and W pixels, h and w pixels of the small image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.low_resolution import ResizeKernel, resize
from cascade.errors import ContractError

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
    scale = images.shape[-2] // low_res.shape[-2]
    if tuple(images.shape[-2:]) != tuple(side * scale for side in low_res.shape[-2:]):
        raise ContractError(
            f"images of {tuple(images.shape[-2:])} px are not {tuple(low_res.shape[-2:])} px "
            "enlarged by a whole number."
        )
    if scale == 1:
        return low_res.clone()
    result = images.clone()
    small_rows, margin = low_res.shape[-2], REACH_PX * rounds
    band = max(1, band_px // scale)
    for first in range(0, small_rows, band):
        last = min(small_rows, first + band)
        top, bottom = max(0, first - margin), min(small_rows, last + margin)
        corrected = _back_project(
            images[..., top * scale : bottom * scale, :],
            low_res[..., top:bottom, :],
            kernel,
            rounds,
        )
        inner = corrected[..., (first - top) * scale : (last - top) * scale, :]
        result[..., first * scale : last * scale, :] = inner
    return result


def _back_project(images: Tensor, low_res: Tensor, kernel: ResizeKernel, rounds: int) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    for _ in range(rounds):
        small = resize(images, (low_res.shape[-2], low_res.shape[-1]), kernel)
        missing = F.interpolate(low_res - small, size=size, mode="bicubic")
        images = (images + missing).clamp(-1, 1)
    return images
