"""Distances between a set of images and a set of real ones: the Fréchet distance and KID.

Both compare features. Figures carry the extractor's name, such as KID-EffLite0, and cannot be
compared between extractors. They depend on the numbers of images, so state these with them. The
Fréchet distance of few images is too high; KID has no such bias, and can be slightly negative for
equal distributions. `cascade.evaluation.intervals` explains the intervals.

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
    """Compute the Fréchet distance of two feature sets, treated as Gaussians (Heusel et al. 2017).

    tr (C1 C2)^(1/2) is the sum of the singular values of A B^T where C1 = A^T A and C2 = B^T B.
    This is exact even if there are fewer images than features, where libraries take the roots of
    the eigenvalues of a singular matrix.

    Args:
        features: (N, F) features of the samples, N at least 2.
        truth: (M, F) features of the real images, M at least 2.

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
    """Factor the covariance of features (N, F) into A^T A, with A of at most F rows."""
    root = (features - features.mean(dim=0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root


def frechet_estimate(
    features: Tensor, truth: Tensor, *, drawings: int = FRECHET_DRAWINGS, seed: int = 0
) -> Estimate:
    """Estimate the Fréchet distance with its interval.

    Args:
        features: (N, F) features of the samples.
        truth: (M, F) features of the real images.
        drawings: how many times R to draw both sets.
        seed: decides the drawings.

    Raises:
        ContractError: if a set has fewer than 2 images.
    """
    value = frechet_distance(features, truth)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(drawings):
        pair = [
            each[torch.randint(len(each), (len(each),), generator=generator).to(each.device)]
            for each in (features, truth)
        ]
        values.append(frechet_distance(*pair))
    estimate = spread_around(value, torch.tensor(values, dtype=torch.float64))
    return estimate._replace(low=max(estimate.low, 0.0))


def kernel_estimate(
    features: Tensor, truth: Tensor, *, drawings: int = KERNEL_DRAWINGS, seed: int = 0
) -> Estimate:
    """Estimate KID times 1000: the unbiased squared MMD with the kernel (x . y / F + 1)^3.

    Bińkowski et al. 2018, arXiv 1801.01401, over all pairs of images instead of subsets. In a
    drawing, an image counts as often as it was drawn, but never as a pair with itself, so the drawn
    values have no bias either.

    Args:
        features: (N, F) features of the samples.
        truth: (M, F) features of the real images.
        drawings: how many times R to draw both sets.
        seed: decides the drawings.

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
    """Mean kernel (R,) between the two sets, whose images count a (R, N) and b (R, M) times."""
    return _sum_of_kernels(features, a, others, b) / (a.sum(dim=1) * b.sum(dim=1))


def _mean_of_pairs(features: Tensor, counts: Tensor) -> Tensor:
    """Mean kernel (R,) of two different images of a set, which count `counts` (R, N) times."""
    with_itself = counts.square()
    alone = (features.double().square().sum(dim=1) / features.shape[1] + 1) ** 3
    total = _sum_of_kernels(features, counts, features, counts) - with_itself @ alone.cpu()
    return total / (counts.sum(dim=1).square() - with_itself.sum(dim=1)).clamp(min=1)


def _sum_of_kernels(features: Tensor, a: Tensor, others: Tensor, b: Tensor) -> Tensor:
    """Sum (x . y / F + 1)^3 over all pairs, in blocks of rows, since all may not fit in memory."""
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
    """Write the warnings that distances between small sets need.

    Args:
        count: number of images in the smaller set.
        features: number F of features.

    Returns:
        Sentences; an empty list if there are enough images.
    """
    notes = []
    if count <= features:
        notes.append(
            f"there are only {count} images for {features} features, so the Fréchet distance is "
            "too high; compare it only with distances of as many images."
        )
    if count < FEWEST_FOR_KERNEL:
        notes.append(
            f"{count} images are few: check the intervals, and use {FEWEST_FOR_KERNEL} or more."
        )
    return notes
