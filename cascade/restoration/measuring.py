"""Measures how noisy and how compressed a picture is, for stages that are told so.

Results are made
to agree with what remains of the input when its noise is taken away.

Shapes: C channels, h and w pixels of the input, H and W of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.defects import CLEAN, NAME, Defects, checked_defects, scaled_defects
from cascade.conditioning.jpeg_quality import NO_LOSS
from cascade.space import UNITS_8_BIT
from cascade.stage import Stage

TRUST_PX = 8  # means over so many pixels of the input hold in spite of its noise
NOISE_STDS = 3.0  # a difference from the input of so many standard deviations is no noise
STEPS_PER_QUALITY = 0.15  # 8-bit steps by which pixels are off for each step of quality below 100


def defects_of(
    image: Tensor,
    stage: Stage,
    inputs: Mapping[str, Any],
    measure: Callable[[], Defects] | None = None,
) -> Defects:
    """Find out how noisy and how compressed an image is.

    Args:
        image: (C, h, w) in [-1, 1].
        stage: the first stage that runs; for one that is not told, every image counts as clean.
        inputs: further inputs of a user, who may know the defects better.
        measure: measures the image; None to do so by its pixels alone.

    Raises:
        ContractError: if the user's defects are no pair.
    """
    if not stage.contract.has_dial:
        return CLEAN
    if NAME in inputs:
        return Defects(*checked_defects(inputs[NAME], 1)[0].tolist())
    return Defects.of(image) if measure is None else measure()


def defects_for_network(defects: Defects, stage: Stage) -> Defects:
    """What the network of a stage is told of defects, after its setting `denoise`."""
    pair = scaled_defects(torch.tensor([defects]), stage.sampling.denoise)[0]
    return Defects(*pair.tolist())


def denoised_input(image: Tensor, downscaled: Tensor, defects: Defects) -> Tensor:
    """What a result should equal when it is downscaled: the input without its noise.

    Between the input and the downscaled result, slow differences are errors of the result, and so
    are those too large for noise. The others are taken for noise, and stay out of the result.

    Args:
        image: (1, C, h, w) in [-1, 1], the input.
        downscaled: (1, C, h, w) in [-1, 1], the result at the size of the input.
        defects: those of the input; where it is clean, it is returned as it is.

    Returns:
        (1, C, h, w) in [-1, 1].
    """
    noise = 0.0 if math.isnan(defects.noise) else defects.noise
    loss = 0.0 if math.isnan(defects.quality) else NO_LOSS - defects.quality
    std = math.hypot(noise, STEPS_PER_QUALITY * loss)
    if std == 0:
        return image
    bound = NOISE_STDS * std / UNITS_8_BIT
    difference = image - downscaled
    slow = _slow(difference)
    fast = difference - slow
    large = fast.sign() * (fast.abs() - bound).clamp(min=0)
    return (downscaled + slow + large).clamp(-1, 1)


def _slow(images: Tensor) -> Tensor:
    """What varies slowly in images (1, C, h, w)."""
    size = (images.shape[-2], images.shape[-1])
    coarse = (max(1, size[0] // TRUST_PX), max(1, size[1] // TRUST_PX))
    means = F.interpolate(images, size=coarse, mode="area")
    return F.interpolate(means, size=size, mode="bilinear")
