"""Fill the unknown pixels of images smoothly from the known ones around them.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def filled(images: Tensor, known: Tensor) -> Tensor:
    """Give unknown pixels the colours of their known neighbours.

    The known pixels are averaged over coarser and coarser grids, and each unknown pixel takes the
    finest average that exists there (push-pull: Gortler et al. 1996, "The Lumigraph", section 3.5).

    Args:
        images: (B, C, H, W), of any range.
        known: (B, 1, H, W) bool.

    Returns:
        (B, C, H, W). Known pixels keep their values; an image without any becomes 0.
    """
    if known.all():
        return images
    if known.shape[-2:] == (1, 1):
        return images * known
    weight = functional.avg_pool2d(known.float(), 2, ceil_mode=True)  # (B, 1, H/2, W/2)
    mean = functional.avg_pool2d(images * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    coarse = filled(mean, weight > 0)
    coarse = functional.interpolate(coarse, images.shape[-2:], mode="bilinear")
    return torch.where(known, images, coarse)
