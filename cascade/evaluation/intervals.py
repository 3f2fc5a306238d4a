"""Bootstrap intervals of 95 %: how much figures would vary with other images.

The bootstrap (Efron 1979) draws as many images as there are, with replacement, and measures them
again. A set with duplicates looks less varied than it is, which raises distances between sets.
Therefore the interval takes the spread of the drawn values around their own mean and puts it around
the measured value. It says nothing about the bias of that value.

Images of one file, such as the slices of a volume, resemble each other, so whole files are drawn
(the cluster bootstrap). This leaves out the distances of sets, which draw single images.

Shapes: N images of G files, R drawings.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
    values: Sequence[float],
    *,
    files: Sequence[str] | None = None,
    drawings: int = MEAN_DRAWINGS,
    seed: int = 0,
) -> Estimate:
    """Estimate the mean of a figure of single images, such as PSNR.

    The interval stays within the range of the values.

    Args:
        values: one value per image, at least 2.
        files: for each image, the name of its file, at least 2 different ones; None if each image
            is a file of its own.
        drawings: how many times R to draw.
        seed: decides the drawings.
    """
    each = torch.tensor(values, dtype=torch.float64)
    sums, sizes = _of_files(each, range(len(each)) if files is None else files)  # (G,) both
    counts = draw_counts(len(sums), drawings, torch.Generator().manual_seed(seed))[1:]
    estimate = spread_around(float(each.mean()), counts @ sums / (counts @ sizes))
    return estimate._replace(
        low=max(estimate.low, float(each.min())), high=min(estimate.high, float(each.max()))
    )


def mean_interval(
    values: Sequence[float], files: Sequence[str]
) -> tuple[float, float] | tuple[None, None]:
    """The interval of `mean_estimate`; none if all images are of one file.

    Args:
        values: one value per image.
        files: for each image, the name of its file; more names than values are left out.
    """
    names = files[: len(values)]
    if len(set(names)) < 2:
        return None, None
    estimate = mean_estimate(values, files=names)
    return estimate.low, estimate.high


def _of_files(values: Tensor, files: Sequence[Hashable]) -> tuple[Tensor, Tensor]:
    """The sum of the values of each file and their number: (G,) float64 each."""
    places: dict[Hashable, int] = {}
    each = torch.tensor([places.setdefault(file, len(places)) for file in files])
    empty = torch.zeros(len(places), dtype=torch.float64)
    return empty.index_add(0, each, values), empty.index_add(0, each, torch.ones_like(values))


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
