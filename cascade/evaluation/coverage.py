"""How much of the real pictures a set of samples covers, how varied it is, and what it copies.

Precision and recall: Kynkäänniemi et al. 2019, arXiv 1904.06991. Density and coverage: Naeem et al.
2020, arXiv 2002.09797. All look at balls around features that reach to the k-th nearest neighbour
in the same set, and so depend on the numbers of images: state them.

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
    """Share of samples that look real, and of real images that samples look like; 0 to 1.

    Both are means of an image each: `precision` (N,), `recall` (M,), float64, 0 or 1.
    """

    precision: Tensor
    recall: Tensor


class DensityCoverage(NamedTuple):
    """How many real images' balls hold a sample (1 as for real ones), and share that hold any.

    Both are means of an image each: `density` (N,), `coverage` (M,), float64, of which the latter
    is 0 or 1.
    """

    density: Tensor
    coverage: Tensor


class Neighbours(NamedTuple):
    """Of each sample the nearest other image: distance (N,) float64 and index (N,) int64."""

    distances: Tensor
    indices: Tensor


def precision_recall(
    features: Tensor, truth: Tensor, *, neighbours: int = PRECISION_NEIGHBOURS
) -> PrecisionRecall:
    """Improved precision and recall (arXiv 1904.06991, eq. 1-3), image by image.

    Args:
        features: (N, F) of samples.
        truth: (M, F) of real images.
        neighbours: k; every ball reaches to the k-th nearest of its own set.

    Raises:
        ContractError: if a set has not more than k images.
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
    """Density and coverage (arXiv 2002.09797, eq. 5 and 6), which odd images harm less.

    Args:
        features: (N, F) of samples.
        truth: (M, F) of real images.
        neighbours: k; every ball reaches to the k-th nearest real image.

    Raises:
        ContractError: if there are not more than k real images, or no sample.
    """
    _check_counts("density and coverage", neighbours, truth)
    _check_counts("density and coverage", 0, features)
    radii = _radii(truth, neighbours)
    inside, covered = [], torch.zeros(len(truth), dtype=torch.bool, device=truth.device)
    for part in _distances(features, truth):
        held = part <= radii
        inside.append(held.sum(dim=1).double() / neighbours)
        covered |= held.any(dim=0)
    return DensityCoverage(torch.cat(inside), covered.double())


def nearest_neighbours(features: Tensor, others: Tensor) -> Neighbours:
    """The nearest other image of each sample, such as a training picture that it may be a copy of.

    Args:
        features: (N, F) of samples.
        others: (M, F), at least one.
    """
    _check_counts("nearest neighbours", 0, others)
    nearest = [part.min(dim=1) for part in _distances(features, others)]
    return Neighbours(
        torch.cat([each.values for each in nearest]), torch.cat([each.indices for each in nearest])
    )


def diversity(features: Tensor) -> float:
    """Mean distance of the features of two different images of a set; 0 if all are the same.

    Args:
        features: (N, F).

    Raises:
        ContractError: if there are fewer than 2 images.
    """
    _check_counts("diversity", 1, features)
    centred = features - features.mean(dim=0)  # so that equal images are 0 apart after rounding
    total = sum(float(part.sum()) for part in _distances(centred, centred))
    return total / (len(features) * (len(features) - 1))


def inception_score(probabilities: Tensor) -> float:
    """How sure a classifier is of each sample, and how many classes it sees in all.

    exp of the mean KL divergence of an image's classes from those of the whole set (Salimans et
    al. 2016, arXiv 1606.03498), without splits: from 1 to K. It ignores real images.

    Args:
        probabilities: (N, K), rows that add up to 1.
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    mean = probabilities.mean(dim=0, keepdim=True).clamp(min=tiny)
    logs = probabilities.clamp(min=tiny).log() - mean.log()
    return float((probabilities * logs).sum(dim=1).mean().exp())


def _distances(features: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Euclidean distances, some rows (n, M) at a time: all of them may not fit into memory."""
    for part in features.double().split(ROWS_AT_A_TIME):
        yield torch.cdist(part, others.double())


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each image to its k-th nearest other one in the set: (N,)."""
    radii = []
    for number, part in enumerate(_distances(features, features)):
        rows = torch.arange(len(part), device=part.device)
        part[rows, rows + number * ROWS_AT_A_TIME] = -1.0  # itself, whatever the rounding
        radii.append(part.kthvalue(neighbours + 1, dim=1).values)
    return torch.cat(radii)


def _check_counts(what: str, neighbours: int, *sets: Tensor) -> None:
    fewest = min(len(features) for features in sets)
    if fewest <= neighbours:
        raise ContractError(
            f"{what} need at least {neighbours + 1} images in each set, got {fewest}; add images."
        )
