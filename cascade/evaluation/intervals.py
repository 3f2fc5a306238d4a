"""Bootstrap intervals of 95 %: how much figures would vary with other images.

The bootstrap (Efron 1979) draws as many images as there are, with replacement, and measures them
again. A set with duplicates looks less varied than it is, which raises distances between sets.
Therefore the interval takes the spread of the drawn values around their own mean and puts it around
the measured value. It says nothing about the bias of that value.

Shapes: N images, R drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MEAN_DRAWINGS = 1000
SHARE = 0.95


class Estimate(NamedTuple):
    """A value, and the range in which it would lie in 95 of 100 cases with other images."""

    value: float
    low: float
    high: float


def mean_estimate(
    values: Sequence[float], *, drawings: int = MEAN_DRAWINGS, seed: int = 0
) -> Estimate:
    """Estimate the mean of a figure of single images, such as PSNR.

    The interval stays within the range of the values.

    Args:
        values: one value per image, at least 2.
        drawings: how many times R to draw.
        seed: decides the drawings.
    """
    each = torch.tensor(values, dtype=torch.float64)
    counts = draw_counts(len(each), drawings, torch.Generator().manual_seed(seed))[1:]
    estimate = spread_around(float(each.mean()), counts @ each / len(each))
    return estimate._replace(
        low=max(estimate.low, float(each.min())), high=min(estimate.high, float(each.max()))
    )


def draw_counts(count: int, drawings: int, generator: torch.Generator) -> Tensor:
    """Draw R times from N = `count` images, and count each image: (1 + R, N) float64.

    The first row stands for the images as they are: it counts each of them once.
    """
    indices = torch.randint(count, (drawings, count), generator=generator)
    counts = torch.zeros(drawings, count, dtype=torch.float64)
    counts.scatter_add_(1, indices, torch.ones(drawings, 1, dtype=torch.float64).expand_as(counts))
    return torch.cat([torch.ones(1, count, dtype=torch.float64), counts])


def spread_around(value: float, values: Tensor) -> Estimate:
    """Give a measured value the interval that its values (R,) in the drawings span."""
    ends = torch.tensor([(1 - SHARE) / 2, (1 + SHARE) / 2], dtype=torch.float64)
    low, high = (values - values.mean()).quantile(ends).tolist()
    return Estimate(value, value + low, value + high)
