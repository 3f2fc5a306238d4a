"""Make an upscaled image agree with the low-resolution image that it was made from.

Iterative back-projection (Irani & Peleg 1991): downscale the upscaled image with the stage's own
kernel, upscale the difference from the low-resolution image, and add it. Detail that the
low-resolution image cannot show stays as the stage drew it.

Shapes: B batch, C channels, H and W pixels of the upscaled image, h and w of the low-resolution
image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.errors import ContractError
from cascade.resizing import ResizeKernel, resize

REACH_PX = 4  # low-resolution pixels that one round looks to each side: two down, two up again

Reduce = Callable[[Tensor], Tensor]  # of a correction (B, C, rows, W), of the same shape


def consistent_bands(
    images: Tensor,
    low_res: Tensor,
    kernel: ResizeKernel,
    *,
    rounds: int = 6,
    band_px: int = 1024,
    reduce_on: Callable[[slice], Reduce] | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Change images so that, downscaled, they equal low-resolution images; in bands of rows.

    Bands bound the memory and do not change the result.

    Args:
        images: (B, C, H, W) in [-1, 1]. The caller may overwrite rows that were yielded.
        low_res: (B, C, h, w) in [-1, 1]; H and W are h and w times the same whole number.
        kernel: the kernel that downscales images.
        rounds: rounds of back-projection; each removes most of the remaining difference.
        band_px: rows of a band.
        reduce_on: returns for rows of the images a function that reduces corrections of these rows
            where the images must not change; None to change them everywhere.

    Yields:
        The rows of a band and its images (B, C, rows, W) in [-1, 1], from the top. Where the exact
        solution would leave [-1, 1], the low-resolution image is only approached.

    Raises:
        ContractError: if the sizes do not fit.
    """
    scale = images.shape[-2] // low_res.shape[-2]
    if scale < 1 or tuple(images.shape[-2:]) != tuple(n * scale for n in low_res.shape[-2:]):
        raise ContractError(
            f"images of {tuple(images.shape[-2:])} px are not {tuple(low_res.shape[-2:])} px "
            "upscaled by a whole number."
        )
    low_res_rows, margin = low_res.shape[-2], REACH_PX * rounds
    above, top = images[..., :0, :], 0  # unchanged rows, from `top` to where the band begins
    for first in range(0, low_res_rows, max(1, band_px // scale)):
        last = min(low_res_rows, first + max(1, band_px // scale))
        bottom = min(low_res_rows, last + margin)
        region = torch.cat([above, images[..., first * scale : bottom * scale, :]], dim=-2)
        reduce = None if reduce_on is None else reduce_on(slice(top * scale, bottom * scale))
        band = _back_project(region, low_res[..., top:bottom, :], kernel, rounds, reduce)
        inner = band[..., (first - top) * scale : (last - top) * scale, :]
        start = max(0, last - margin)
        above = region[..., (start - top) * scale : (last - top) * scale, :].clone()
        top = start
        yield slice(first * scale, last * scale), inner


def _back_project(
    images: Tensor, low_res: Tensor, kernel: ResizeKernel, rounds: int, reduce: Reduce | None
) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    if tuple(low_res.shape[-2:]) == size:
        return low_res
    for _ in range(rounds):
        downscaled = resize(images, (low_res.shape[-2], low_res.shape[-1]), kernel)
        correction = F.interpolate(low_res - downscaled, size=size, mode="bicubic")
        images = (images + (reduce(correction) if reduce else correction)).clamp(-1, 1)
    return images
