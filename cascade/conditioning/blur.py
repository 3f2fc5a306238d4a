"""Blur of conditioning images in training (CDM, Ho et al. 2021, arXiv 2106.15282)."""

from __future__ import annotations

import torch
from torch import Tensor

SIGMA_PX = (0.4, 0.6)
KERNEL_PX = 3


def blur(images: Tensor, uniform: Tensor, probability: float) -> Tensor:
    """Blur some of the images with a 3x3 Gaussian of sigma U(0.4, 0.6).

    Args:
        images: (B, C, h, w).
        uniform: (B, 2) uniform draws in [0, 1): an image is blurred if the first is below
            `probability`, with the sigma that the second gives.
        probability: share of the images that are blurred, in [0, 1].

    Returns:
        (B, C, h, w).
    """
    from kornia.filters import gaussian_blur2d

    low, high = SIGMA_PX
    sigma = (low + (high - low) * uniform[:, 1:]).expand(-1, 2).to(images)  # (B, 2)
    blurred = gaussian_blur2d(images, (KERNEL_PX, KERNEL_PX), sigma)
    mask = (uniform[:, 0] < probability).view(-1, 1, 1, 1)
    return torch.where(mask, blurred, images)
