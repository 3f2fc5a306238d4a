"""Fill the colours that are hidden under full transparency.

Nobody sees them, but a network and a filter do: the black or white that programs leave there would
bleed into the edge of what is visible.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def fill_hidden(colour: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colours of their visible neighbours.

    The visible pixels are averaged over coarser and coarser grids, and each hidden pixel takes the
    finest average that exists there (push-pull: Gortler et al. 1996, "The Lumigraph", section 3.5).

    Args:
        colour: (C, H, W), of any range.
        alpha: (1, H, W); 0 is fully transparent.

    Returns:
        (C, H, W) float32. Visible pixels keep their values; if none is visible, all pixels do.
    """
    visible = alpha != 0
    colour = colour.float()
    if visible.all() or not visible.any():
        return colour
    return _filled(colour[None], visible[None])[0]


def _filled(colour: Tensor, visible: Tensor) -> Tensor:
    """One level of the push-pull: (1, C, H, W) by (1, 1, H, W) bool."""
    if visible.all():
        return colour
    weight = functional.avg_pool2d(visible.float(), 2, ceil_mode=True)  # (1, 1, H/2, W/2)
    mean = functional.avg_pool2d(colour * visible, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = _filled(mean, weight > 0)
    coarse = functional.interpolate(coarse, colour.shape[-2:], mode="bilinear")
    return torch.where(visible, colour, coarse)
