"""How well predicted standard deviations tell the size of errors: ranks, and a calibration curve.

Calibrated deviations equal the root mean square error of the pixels that have them (Levi et al.
2019, arXiv 1905.11659, eq. 4). A curve above the diagonal is overconfident: errors are larger than
predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

LOW, HIGH = 1e-5, 10.0  # of the deviations that fine bins tell apart
FINE_BINS = 4096
BINS = 10  # of a curve


@final
@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """Errors by predicted standard deviation, in bins of about as many pixels each.

    Attributes:
        name: what was measured, such as `band 2`; empty for all channels together.
        unit: unit of deviations and errors, such as `8-bit levels`.
        shares: share of all pixels in each bin.
        deviations: root mean square of the predicted deviations in each bin, ascending.
        errors: root mean square error in each bin.
    """

    name: str
    unit: str
    shares: tuple[float, ...]
    deviations: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean distance of errors and deviations, by pixels."""
        bins = zip(self.shares, self.deviations, self.errors, strict=True)
        return sum(share * abs(deviation - error) for share, deviation, error in bins)

    @property
    def ratio(self) -> float:
        """Deviation by error over all pixels; below 1 overconfident; infinite without errors."""
        squares = [
            sum(share * each**2 for share, each in zip(self.shares, values, strict=True))
            for values in (self.deviations, self.errors)
        ]
        return math.sqrt(squares[0] / squares[1]) if squares[1] else math.inf


@final
class Calibration:
    """Collects pixels for a curve; its memory does not grow with their number."""

    def __init__(self) -> None:
        fine = torch.logspace(math.log10(LOW), math.log10(HIGH), FINE_BINS, dtype=torch.float64)
        self._edges = fine
        self._sums = torch.zeros(3, FINE_BINS + 1, dtype=torch.float64)  # count, variance, error

    def add(self, deviations: Tensor, errors: Tensor) -> None:
        """Add pixels.

        Args:
            deviations: predicted standard deviations, of any shape.
            errors: differences from the truth, of the same shape.
        """
        deviations, errors = deviations.flatten().double(), errors.flatten().double()
        places = torch.bucketize(deviations, self._edges)
        for row, values in enumerate((torch.ones_like(errors), deviations**2, errors**2)):
            self._sums[row] += places.bincount(values, FINE_BINS + 1)

    def binned(self, bins: int) -> Tensor:
        """Bins of about as many pixels each, by deviation, at most `bins`: (3, N) float64.

        The rows are numbers of pixels, mean squared deviations, and mean squared errors.
        """
        counts = self._sums[0]
        middles = (counts.cumsum(0) - counts / 2) / counts.sum()
        groups = (middles * bins).long().clamp(0, bins - 1)
        merged = torch.zeros(3, bins, dtype=torch.float64).index_add_(1, groups, self._sums)
        merged = merged[:, merged[0] > 0]
        return torch.cat([merged[:1], merged[1:] / merged[0]])

    def curve(self, name: str, unit: str, factor: float = 1.0) -> CalibrationCurve:
        """Make the curve of all pixels.

        Args:
            name: what was measured.
            unit: unit of the curve.
            factor: the units that 1 of the added numbers stands for.
        """
        counts, *squares = self.binned(BINS)
        means = torch.stack(squares).sqrt() * factor
        return CalibrationCurve(
            name=name,
            unit=unit,
            shares=tuple((counts / counts.sum()).tolist()),
            deviations=tuple(means[0].tolist()),
            errors=tuple(means[1].tolist()),
        )


def rank_correlation(deviations: Tensor, errors: Tensor) -> float:
    """Rank correlation (Spearman) of deviations with the size of errors; ties share a mean rank.

    Args:
        deviations: of any shape.
        errors: of the same shape, with sign or without.

    Returns:
        From -1 to 1; 0 if one of both is the same everywhere.
    """
    ranks = torch.stack([_ranks(deviations), _ranks(errors.abs())])
    ranks -= ranks.mean(dim=1, keepdim=True)
    covariance = (ranks[0] * ranks[1]).sum()
    scale = ranks.square().sum(dim=1).prod().sqrt()
    return float(covariance / scale) if scale > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    """The rank of each number among all, float64."""
    _, places, counts = values.flatten().unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[places]
