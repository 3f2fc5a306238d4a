"""How much figures would move with other images: bootstrap intervals.

Images are drawn anew, with replacement, as often as there are any, for distances in both sets
(Efron 1979). Drawing an image twice makes sets look less varied than they are and so raises the
Fréchet distance; therefore the spread of the drawn values is kept, and laid around the value
itself. An interval says nothing of the bias of that value: the Fréchet distance of few images is
too high.

Shapes: N samples, M real images, F features, R drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.metrics import frechet_distance

FRECHET_DRAWINGS = 40
KERNEL_DRAWINGS = 1000
MEAN_DRAWINGS = 1000
SHARE = 0.95
FEWEST_FOR_KERNEL = 100
ROWS_AT_A_TIME = 1024


class Estimate(NamedTuple):
    """A value, and between what it would lie in 95 of 100 cases with other images."""

    value: float
    low: float
    high: float


def frechet_estimate(
    features: Tensor, truth: Tensor, *, drawings: int = FRECHET_DRAWINGS, seed: int = 0
) -> Estimate:
    """The Fréchet distance with its interval.

    Args:
        features: (N, F) of samples.
        truth: (M, F) of real images.
        drawings: R.
        seed: of the drawing.

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    value = frechet_distance(features, truth)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(drawings):
        chosen = [
            each[torch.randint(len(each), (len(each),), generator=generator).to(each.device)]
            for each in (features, truth)
        ]
        drawn.append(frechet_distance(*chosen))
    around = _around(value, torch.tensor(drawn, dtype=torch.float64))
    return around._replace(low=max(around.low, 0.0))


def kernel_estimate(
    features: Tensor, truth: Tensor, *, drawings: int = KERNEL_DRAWINGS, seed: int = 0
) -> Estimate:
    """KID times 1000, over all pairs of images and not over subsets, with its interval.

    In a drawing, an image counts as often as it was drawn, but never as a pair with itself, so
    that the drawn values are without bias too.

    Args:
        features: (N, F) of samples.
        truth: (M, F) of real images.
        drawings: R.
        seed: of the drawing.

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    if min(len(features), len(truth)) < 2:
        raise ContractError(
            f"KID needs at least 2 images in each set, got {min(len(features), len(truth))}; add "
            "images."
        )
    generator = torch.Generator().manual_seed(seed)
    own, real = (_counts(len(each), drawings, generator) for each in (features, truth))
    squared = _mean_of_pairs(features, own) + _mean_of_pairs(truth, real)
    found = 1000 * (squared - 2 * _mean_between(features, own, truth, real))
    return _around(float(found[0]), found[1:])


def mean_estimate(
    values: Sequence[float], *, drawings: int = MEAN_DRAWINGS, seed: int = 0
) -> Estimate:
    """The mean of a figure of single images, such as PSNR, with its interval.

    The interval does not leave the range of the values.

    Args:
        values: of each image, at least 2.
        drawings: R.
        seed: of the drawing.
    """
    each = torch.tensor(values, dtype=torch.float64)
    drawn = _counts(len(each), drawings, torch.Generator().manual_seed(seed))[1:]
    found = _around(float(each.mean()), drawn @ each / len(each))
    return found._replace(
        low=max(found.low, float(each.min())), high=min(found.high, float(each.max()))
    )


def _counts(count: int, drawings: int, generator: torch.Generator) -> Tensor:
    """How often each of `count` images counts: once, and as often as drawn: (1 + R, count)."""
    drawn = torch.randint(count, (drawings, count), generator=generator)
    often = torch.zeros(drawings, count, dtype=torch.float64)
    often.scatter_add_(1, drawn, torch.ones(drawings, 1, dtype=torch.float64).expand_as(often))
    return torch.cat([torch.ones(1, count, dtype=torch.float64), often])


def _mean_between(features: Tensor, a: Tensor, others: Tensor, b: Tensor) -> Tensor:
    """Mean kernel of an image of each set, which count a (R, N) and b (R, M) times: (R,)."""
    return _sum_of_kernels(features, a, others, b) / (a.sum(dim=1) * b.sum(dim=1))


def _mean_of_pairs(features: Tensor, counts: Tensor) -> Tensor:
    """Mean kernel of two different images of a set: (R,)."""
    with_itself = counts.square()
    alone = (features.double().square().sum(dim=1) / features.shape[1] + 1) ** 3
    total = _sum_of_kernels(features, counts, features, counts) - with_itself @ alone.cpu()
    return total / (counts.sum(dim=1).square() - with_itself.sum(dim=1)).clamp(min=1)


def _sum_of_kernels(features: Tensor, a: Tensor, others: Tensor, b: Tensor) -> Tensor:
    """(x . y / F + 1)^3 of all pairs, some rows at a time: all may not fit into memory."""
    others, b = others.double(), b.to(others.device)
    total = torch.zeros(len(a), dtype=torch.float64)
    for part, times in zip(
        features.double().split(ROWS_AT_A_TIME), a.split(ROWS_AT_A_TIME, dim=1), strict=True
    ):
        kernel = (part @ others.T / features.shape[1] + 1) ** 3
        total += ((b @ kernel.T).cpu() * times).sum(dim=1)
    return total


def _around(value: float, drawn: Tensor) -> Estimate:
    ends = torch.tensor([(1 - SHARE) / 2, (1 + SHARE) / 2], dtype=torch.float64)
    low, high = (drawn - drawn.mean()).quantile(ends).tolist()
    return Estimate(value, value + low, value + high)


def warn_of_few(count: int, features: int) -> list[str]:
    """What to say of distances between sets of which the smaller has `count` images.

    Args:
        count: of images.
        features: F.

    Returns:
        Sentences; none if there are enough.
    """
    said = []
    if count <= features:
        said.append(
            f"{count} images are no more than the {features} features: the Fréchet distance is too "
            "high, and can only be compared with ones of as many images."
        )
    if count < FEWEST_FOR_KERNEL:
        said.append(
            f"{count} images are few: look at the intervals, and use {FEWEST_FOR_KERNEL} or more."
        )
    return said
