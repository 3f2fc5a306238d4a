"""Small squares of a picture and their waves, by which its noise and its compression are measured.

Shapes: C channels, H and W pixels, N patches of P px.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.space import UNITS_8_BIT


def luminance_patches(
    image: Tensor, side_px: int, *, grid_px: int, most: int, start_px: tuple[int, int] = (0, 0)
) -> Tensor:
    """Patches of the luminance of a picture, spread evenly over it.

    Args:
        image: (C, H, W) in [-1, 1], of one or three channels; a picture smaller than a patch is
            repeated.
        side_px: side P of a patch.
        grid_px: patches begin at multiples of this from `start_px`, and of a large picture only at
            some of them.
        most: number of patches that is hardly exceeded.
        start_px: row and column of the first patch.

    Returns:
        (N, P, P) in 8-bit steps from 0 to 255.
    """
    grey = luminance(image[None])[0, 0]
    height, width = grey.shape
    repeats = [
        math.ceil((side_px + start) / side)
        for start, side in zip(start_px, (height, width), strict=True)
    ]
    grey = grey.repeat(*repeats)[start_px[0] :, start_px[1] :]
    step_px = grid_px * math.ceil(math.sqrt(height * width / grid_px**2 / most))
    patches = grey.unfold(0, side_px, step_px).unfold(1, side_px, step_px)
    return (patches.reshape(-1, side_px, side_px) + 1) * UNITS_8_BIT


def waves_of(patches: Tensor) -> Tensor:
    """The orthonormal discrete cosine transform of patches (N, P, P)."""
    side_px = patches.shape[-1]
    n = torch.arange(side_px, dtype=patches.dtype, device=patches.device)
    waves = torch.cos(math.pi / side_px * n[:, None] * (n + 0.5)) * math.sqrt(2 / side_px)
    waves[0] /= math.sqrt(2)
    return waves @ patches @ waves.T
