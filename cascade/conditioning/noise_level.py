"""The noise of a picture, measured in its flattest places.

The deviation of a small patch from a plane is noise or detail. Few pictures have detail everywhere,
so the patches that deviate least show the noise (compare Pyatykh et al. 2013, section I, on methods
of this kind). Unlike methods that assume white noise, such as the median of the finest wavelet or
the smallest principal components, it measures grains larger than a pixel too.

Shapes: C channels, H and W pixels, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cascade.conditioning.patches import luminance_patches, waves_of
from cascade.space import UNITS_8_BIT

PATCH_PX = 5
MOST_PATCHES = 2**16
SHARE = 0.01  # of the patches, those that deviate least
SHARE_OF_STD = 0.72  # how much of the noise they show: less than all, since chance picks them too
CLIPPED = 2.0  # 8-bit steps from black and white, where noise is cut off


def noise_level(image: Tensor) -> float:
    """Measure the noise of a picture.

    On photographs of 256 px with white noise of a standard deviation from 4 to 20, half of the
    results are within 15 % of it. Without noise, half of them are below 0.6, and below 2 if the
    photograph was downscaled to 64 px, which leaves few flat places. Grains that are larger than a
    pixel count less.

    Args:
        image: (C, H, W) in [-1, 1], of one or three channels.

    Returns:
        Standard deviation of the noise of the luminance in 8-bit steps; 0 if no part of the picture
        can show it.
    """
    patches = _patches(image)
    return _lowest(patches, patches)


def noise_between(noisy: Tensor, clean: Tensor) -> float:
    """The noise that `noise_level` would measure if a picture had no detail.

    Of noise that was compressed, little is left in many places, and both measure that little.

    Args:
        noisy: (C, H, W) in [-1, 1].
        clean: the same picture without noise.
    """
    if noisy.equal(clean):
        return 0.0
    patches = _patches(noisy)
    return _lowest(patches - _patches(clean), patches)


def _lowest(noise: Tensor, patches: Tensor) -> float:
    """The noise (N, 5, 5) where it is least, of those patches (N, 5, 5) that are not clipped."""
    is_shown = (patches.mean(dim=(1, 2)) - UNITS_8_BIT).abs() < UNITS_8_BIT - CLIPPED
    if not is_shown.any():
        return 0.0
    lowest = float(_deviations(noise[is_shown]).quantile(SHARE))
    return round(lowest / SHARE_OF_STD, 2)  # so that rounding is no noise


def _patches(image: Tensor) -> Tensor:
    return luminance_patches(image, PATCH_PX, grid_px=1, most=MOST_PATCHES)


def _deviations(patches: Tensor) -> Tensor:
    """The standard deviation (N,) of each patch (N, 5, 5) from a plane."""
    n = torch.arange(PATCH_PX)
    return waves_of(patches)[:, n[:, None] + n >= 2].square().mean(dim=1).sqrt()
