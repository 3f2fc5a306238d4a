"""How far a set of images is from a set of real ones: the Fréchet distance and KID.

Both compare features; figures carry the extractor's name, such as KID-EffLite0, and are not
comparable between extractors. They depend on the numbers of images: state them. The Fréchet
distance of few images is too high; KID has no such bias, and can be slightly negative for equal
distributions. Intervals: see `cascade.evaluation.intervals`.

Shapes: N samples, M real images, F features, R drawings.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.evaluation.intervals import Estimate, draw_counts, spread_around

FRECHET_DRAWINGS = 40
KERNEL_DRAWINGS = 1000
FEWEST_FOR_KERNEL = 100
ROWS_AT_A_TIME = 1024


def frechet_distance(features: Tensor, truth: Tensor) -> float:
    """Fréchet distance of two feature sets, each taken as a Gaussian (Heusel et al. 2017).

    tr (C1 C2)^(1/2) is the sum of the singular values of A B^T where C1 = A^T A and C2 = B^T B:
    exact where the samples are fewer than the features, for which libraries take the roots of the
    eigenvalues of a singular matrix.

    Args:
        features: (N, F), N at least 2.
        truth: (M, F).

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    _check_two("the Fréchet distance", features, truth)
    roots = [_covariance_root(each) for each in (features, truth)]
    cross = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = torch.stack([root.square().sum() for root in roots]).sum()
    means = (features.mean(dim=0) - truth.mean(dim=0)).square().sum()
    return float(means + traces - 2 * cross)


def _covariance_root(features: Tensor) -> Tensor:
    """A (N or F, F) with A^T A the covariance of features (N, F): never more than F rows."""
    root = (features - features.mean(dim=0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def frechet_estimate(
    features: Tensor, truth: Tensor, *, drawings: int = FRECHET_DRAWINGS, seed: int = 0
) -> Estimate:
    """The Fréchet distance with its interval.

    Args:
        features: (N, F) of samples.
        truth: (M, F) of real images.
        drawings: R.
        seed: of the drawings.

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    value = frechet_distance(features, truth)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(drawings):
        pair = [
            each[torch.randint(len(each), (len(each),), generator=generator).to(each.device)]
            for each in (features, truth)
        ]
        drawn.append(frechet_distance(*pair))
    estimate = spread_around(value, torch.tensor(drawn, dtype=torch.float64))
    return estimate._replace(low=max(estimate.low, 0.0))


def kernel_estimate(
    features: Tensor, truth: Tensor, *, drawings: int = KERNEL_DRAWINGS, seed: int = 0
) -> Estimate:
    """KID times 1000 with its interval: the unbiased squared MMD with kernel (x . y / F + 1)^3.

    Bińkowski et al. 2018, arXiv 1801.01401, over all pairs of images instead of subsets. In a
    drawing, an image counts as often as it was drawn, but never as a pair with itself, so that the
    drawn values have no bias either.

    Args:
        features: (N, F) of samples.
        truth: (M, F) of real images.
        drawings: R.
        seed: of the drawings.

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    _check_two("KID", features, truth)
    generator = torch.Generator().manual_seed(seed)
    own, real = (draw_counts(len(each), drawings, generator) for each in (features, truth))
    squared = _mean_of_pairs(features, own) + _mean_of_pairs(truth, real)
    distances = 1000 * (squared - 2 * _mean_between(features, own, truth, real))  # (1 + R,)
    return spread_around(float(distances[0]), distances[1:])


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


def _check_two(what: str, features: Tensor, truth: Tensor) -> None:
    count = min(len(features), len(truth))
    if count < 2:
        raise ContractError(f"{what} needs at least 2 images in each set, got {count}; add images.")


def warn_of_few(count: int, features: int) -> list[str]:
    """Notes on distances between sets of which the smaller has `count` images.

    Args:
        count: number of images.
        features: F.

    Returns:
        Sentences; none if there are enough images.
    """
    notes = []
    if count <= features:
        notes.append(
            f"{count} images are no more than the {features} features: the Fréchet distance is too "
            "high, and can only be compared with ones of as many images."
        )
    if count < FEWEST_FOR_KERNEL:
        notes.append(
            f"{count} images are few: look at the intervals, and use {FEWEST_FOR_KERNEL} or more."
        )
    return notes
