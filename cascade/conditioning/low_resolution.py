"""The low-resolution image as a condition, with noise-conditioning augmentation.

After CDM (Ho et al. 2021, arXiv 2106.15282, section 4): Gaussian noise on the small image, drawn
once per image, at the level that the network is told; blur in training only. One function serves
training and sampling, both in [-1, 1].

Shapes: B batch, C channels, h and w pixels of the small image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ResizeKernel = Literal["bicubic", "bilinear", "area", "nearest"]
BLUR_SIGMA = (0.4, 0.6)
BLUR_KERNEL_PX = 3


def resize(images: Tensor, size_px: tuple[int, int], kernel: ResizeKernel) -> Tensor:
    """Resize with an antialiased kernel, the same one everywhere.

    Args:
        images: (B, C, h, w) in [-1, 1].
        size_px: height and width to reach.
        kernel: `area` averages exactly and is for whole factors down; enlarging with it repeats
            pixels.

    Returns:
        (B, C, *size_px), clamped to [-1, 1], since bicubic overshoots.
    """
    if tuple(images.shape[-2:]) == tuple(size_px):
        return images
    if kernel in ("area", "nearest"):
        return F.interpolate(images, size=size_px, mode=kernel)
    if size_px[1] == 1 < size_px[0]:  # torch 2.14 gives every row of a column the first value
        return resize(images.transpose(-2, -1), (1, size_px[0]), kernel).transpose(-2, -1)
    return F.interpolate(images, size=size_px, mode=kernel, antialias=True).clamp(-1, 1)


def quantise(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to the 256 values of an 8-bit file."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def augment(low_res: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Noise the conditioning image at a level, keeping the variance.

    Args:
        low_res: (B, C, h, w) in [-1, 1], at its own small size.
        level: (B,) in [0, 1]: 0 leaves the image as it is, 1 is pure noise.
        noise: (B, C, h, w) standard normal, drawn once per image.

    Returns:
        cos(pi/2 level) low_res + sin(pi/2 level) noise, (B, C, h, w).
    """
    angle = (level * math.pi / 2).view(-1, 1, 1, 1).to(low_res.dtype)
    return torch.cos(angle) * low_res + torch.sin(angle) * noise


def blur(low_res: Tensor, uniform: Tensor, probability: float) -> Tensor:
    """Blur a part of the batch, as CDM does in training (3x3, sigma from U(0.4, 0.6)).

    Args:
        low_res: (B, C, h, w).
        uniform: (B, 2) in [0, 1): which images are blurred, and how much.
        probability: of an image to be blurred.

    Returns:
        (B, C, h, w).
    """
    from kornia.filters import gaussian_blur2d

    low, high = BLUR_SIGMA
    sigma = (low + (high - low) * uniform[:, 1:]).expand(-1, 2).to(low_res)  # (B, 2)
    blurred = gaussian_blur2d(low_res, (BLUR_KERNEL_PX, BLUR_KERNEL_PX), sigma)
    chosen = (uniform[:, 0] < probability).view(-1, 1, 1, 1)
    return torch.where(chosen, blurred, low_res)
