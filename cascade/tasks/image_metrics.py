"""Metrics of single images: PSNR and SSIM beside their originals, and colourfulness.

Conventions, the same for every metric: RGB, all pixels (no border is cut off), results rounded to
8 bits first, levels of 255.

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cascade.errors import CascadeError
from cascade.extras import install_command
from cascade.resizing import quantise

BAND_LEVELS = 2**16  # to which bands are rounded for PSNR and SSIM
MOST_PSNR_DB = 100.0  # in place of infinity


def psnr(
    images: Tensor, truth: Tensor, levels: int | None = None, known: Tensor | None = None
) -> Tensor:
    """Peak signal-to-noise ratio over all channels.

    Args:
        images: (B, C, H, W) in [-1, 1], results.
        truth: (B, C, H, W) in [-1, 1], their originals.
        levels: number of values to which both are rounded; None for the 256 of 8 bits.
        known: (B, C, H, W) bool, False at values to leave out, with some True in each image; None
            for all values.

    Returns:
        (B,) in dB; infinite for a result that equals its original.
    """
    from_truth = (_levels(images, levels) - _levels(truth, levels)).square().flatten(1)
    if known is None:
        return 10 * torch.log10(255**2 / from_truth.mean(dim=1))
    counted = known.flatten(1)
    return 10 * torch.log10(255**2 * counted.sum(dim=1) / (from_truth * counted).sum(dim=1))


def ssim(images: Tensor, truth: Tensor, levels: int | None = None) -> Tensor:
    """Structural similarity with a Gaussian window of 11 px and sigma 1.5, mean over channels.

    Wang et al. 2004, by torchmetrics, which mirrors the border, so that windows at every pixel
    count. Other implementations (Wang's own, BasicSR) count only windows inside the image; their
    values differ, most for small images.

    Args:
        images: (B, C, H, W) in [-1, 1], results.
        truth: (B, C, H, W) in [-1, 1], their originals.
        levels: as for `psnr`.

    Returns:
        (B,); 1 for a result that equals its original.

    Raises:
        CascadeError: if torchmetrics is not installed.
    """
    similarity = _torchmetrics().functional.image.structural_similarity_index_measure
    pair = _levels(images, levels), _levels(truth, levels)
    return similarity(*pair, data_range=255.0, reduction="none").view(-1)


def colourfulness(images: Tensor) -> Tensor:
    """How colourful images are: Hasler & Süsstrunk 2003, eq. 13 (their M3), 0 for grey.

    Args:
        images: (B, 3, H, W) in [-1, 1].

    Returns:
        (B,); about 15 is slightly and 109 extremely colourful.
    """
    red, green, blue = _levels(images).flatten(2).unbind(dim=1)  # (B, H W) each
    opponents = torch.stack([red - green, (red + green) / 2 - blue])
    spread = opponents.var(dim=2, unbiased=False).sum(dim=0).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=0).sqrt()


def _levels(images: Tensor, levels: int | None = None) -> Tensor:
    return (quantise(images, levels or 256) + 1) * 127.5


def _torchmetrics() -> Any:
    try:
        import torchmetrics
        import torchmetrics.functional.image
    except ImportError as error:
        raise CascadeError(
            f"torchmetrics cannot be imported ({error}); install it with: "
            f"{install_command('evaluate')}"
        ) from error
    return torchmetrics
