"""How much of the real images a set of samples covers, how varied it is, and what it copies.

Precision and recall: Kynkäänniemi et al. 2019, arXiv 1904.06991. Density and coverage: Naeem et al.
2020, arXiv 2002.09797. All use balls around features that reach to the k-th nearest neighbour in
the same set. They depend on the numbers of images, so state these with them.

Shapes: N samples, M real images, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cascade.errors import ContractError

PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
ROWS_AT_A_TIME = 1024


class PrecisionRecall(NamedTuple):
    """The share of samples that look real, and of real images that some sample resembles.

    The shares are the means of these tensors.

    Attributes:
        precision: (N,) float64, 1 for a sample inside a real image's ball, else 0.
        recall: (M,) float64, 1 for a real image inside a sample's ball, else 0.
    """

    precision: Tensor
    recall: Tensor


class DensityCoverage(NamedTuple):
    """How densely real images surround samples, and the share of real images with a sample nearby.

    The figures are the means of these tensors.

    Attributes:
        density: (N,) float64, number of real images' balls that hold a sample, divided by k; real
            images have about 1.
        coverage: (M,) float64, 1 for a real image whose ball holds a sample, else 0.
    """

    density: Tensor
    coverage: Tensor


class Neighbours(NamedTuple):
    """The nearest other image of each sample.

    Attributes:
        distances: (N,) float64, Euclidean distances between features.
        indices: (N,) int64, numbers of the other images.
    """

    distances: Tensor
    indices: Tensor


def precision_recall(
    features: Tensor, truth: Tensor, *, neighbours: int = PRECISION_NEIGHBOURS
) -> PrecisionRecall:
    """Compute improved precision and recall (arXiv 1904.06991, eq. 1-3), image by image.

    Args:
        features: (N, F) features of the samples.
        truth: (M, F) features of the real images.
        neighbours: k; each ball reaches to the k-th nearest image of its own set.

    Raises:
        ContractError: if a set has k images or fewer.
    """
    _check_counts("precision and recall", neighbours, features, truth)
    real_radii = _radii(truth, neighbours)
    radii = _radii(features, neighbours)
    looks_real = [(part <= real_radii).any(dim=1) for part in _distances(features, truth)]
    is_covered = [(part <= radii).any(dim=1) for part in _distances(truth, features)]
    return PrecisionRecall(*(torch.cat(parts).double() for parts in (looks_real, is_covered)))


def density_coverage(
    features: Tensor, truth: Tensor, *, neighbours: int = DENSITY_NEIGHBOURS
) -> DensityCoverage:
    """Compute density and coverage (arXiv 2002.09797, eq. 5 and 6), on which outliers weigh less.

    Args:
        features: (N, F) features of the samples.
        truth: (M, F) features of the real images.
        neighbours: k; each ball reaches to the k-th nearest real image.

    Raises:
        ContractError: if there are k real images or fewer, or no sample.
    """
    _check_counts("density and coverage", neighbours, truth)
    _check_counts("density and coverage", 0, features)
    radii = _radii(truth, neighbours)
    inside, covered = [], torch.zeros(len(truth), dtype=torch.bool, device=truth.device)
    for part in _distances(features, truth):
        in_ball = part <= radii
        inside.append(in_ball.sum(dim=1).double() / neighbours)
        covered |= in_ball.any(dim=0)
    return DensityCoverage(torch.cat(inside), covered.double())


def nearest_neighbours(features: Tensor, others: Tensor) -> Neighbours:
    """Find the nearest other image of each sample, such as a training image that it may copy.

    Args:
        features: (N, F) features of the samples.
        others: (M, F) features of the other images, at least one.
    """
    _check_counts("nearest neighbours", 0, others)
    nearest = [part.min(dim=1) for part in _distances(features, others)]
    return Neighbours(
        torch.cat([each.values for each in nearest]), torch.cat([each.indices for each in nearest])
    )


def diversity(features: Tensor) -> float:
    """Compute the mean distance of two different images of a set; 0 if all are equal.

    Args:
        features: (N, F) features of the images.

    Raises:
        ContractError: if there are fewer than 2 images.
    """
    _check_counts("diversity", 1, features)
    centred = features - features.mean(dim=0)  # else rounding keeps equal images apart
    total = sum(float(part.sum()) for part in _distances(centred, centred))
    return total / (len(features) * (len(features) - 1))


def inception_score(probabilities: Tensor) -> float:
    """Compute the inception score, which is high for a sure classifier that sees many classes.

    It is exp of the mean KL divergence between the classes of an image and those of the whole set
    (Salimans et al. 2016, arXiv 1606.03498), without splits, from 1 to K. It ignores real images.

    Args:
        probabilities: (N, K) class probabilities; rows add up to 1.
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    mean = probabilities.mean(dim=0, keepdim=True).clamp(min=tiny)
    logs = probabilities.clamp(min=tiny).log() - mean.log()
    return float((probabilities * logs).sum(dim=1).mean().exp())


def _distances(features: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Yield Euclidean distances in blocks of rows (n, M), since all may not fit in memory."""
    for part in features.double().split(ROWS_AT_A_TIME):
        yield torch.cdist(part, others.double())


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """Distances (N,) of images to their k-th nearest neighbour in the same set."""
    radii = []
    for number, part in enumerate(_distances(features, features)):
        rows = torch.arange(len(part), device=part.device)
        part[rows, rows + number * ROWS_AT_A_TIME] = -1.0  # itself, first of all
        radii.append(part.kthvalue(neighbours + 1, dim=1).values)
    return torch.cat(radii)


def _check_counts(what: str, neighbours: int, *sets: Tensor) -> None:
    fewest = min(len(features) for features in sets)
    if fewest <= neighbours:
        raise ContractError(
            f"{what} need at least {neighbours + 1} images in each set, got {fewest}; add images."
        )
