"""How much figures would differ with other images: bootstrap intervals of 95 %.

Images are drawn anew with replacement, as many as there are (Efron 1979). Drawing an image twice
makes sets look less varied than they are, which raises distances of sets; therefore the interval is
the spread of the drawn values around their mean, placed around the value itself. An interval says
nothing about the bias of that value.

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
    """A value, and between what it would lie in 95 of 100 cases with other images."""

    value: float
    low: float
    high: float


def mean_estimate(
    values: Sequence[float], *, drawings: int = MEAN_DRAWINGS, seed: int = 0
) -> Estimate:
    """The mean of a figure of single images, such as PSNR, with its interval.

    The interval does not leave the range of the values.

    Args:
        values: of each image, at least 2.
        drawings: R.
        seed: of the drawings.
    """
    each = torch.tensor(values, dtype=torch.float64)
    counts = draw_counts(len(each), drawings, torch.Generator().manual_seed(seed))[1:]
    estimate = spread_around(float(each.mean()), counts @ each / len(each))
    return estimate._replace(
        low=max(estimate.low, float(each.min())), high=min(estimate.high, float(each.max()))
    )


def draw_counts(count: int, drawings: int, generator: torch.Generator) -> Tensor:
    """How often each of N = `count` images is drawn: (1 + R, N); in the first row, once each."""
    drawn = torch.randint(count, (drawings, count), generator=generator)
    often = torch.zeros(drawings, count, dtype=torch.float64)
    often.scatter_add_(1, drawn, torch.ones(drawings, 1, dtype=torch.float64).expand_as(often))
    return torch.cat([torch.ones(1, count, dtype=torch.float64), often])


def spread_around(value: float, drawn: Tensor) -> Estimate:
    """The interval of a value, from its values (R,) in the drawings."""
    ends = torch.tensor([(1 - SHARE) / 2, (1 + SHARE) / 2], dtype=torch.float64)
    low, high = (drawn - drawn.mean()).quantile(ends).tolist()
    return Estimate(value, value + low, value + high)
