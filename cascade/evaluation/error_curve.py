"""Fits the curve that leads from the standard deviation over seeds to the expected error.

Isotonic regression: of all curves that never fall, the one with the least squared distance to the
mean squared errors of bins of pixels, by pooling neighbours that fall (Ayer et al. 1955). A single
factor would not do: models are often overconfident where seeds agree, and too careful elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from cascade.evaluation.calibration import Calibration
from cascade.evaluation.intervals import mean_interval
from cascade.restoration.expected_error import ErrorCurve

POINTS = 128  # of a curve, of about as many pixels each
DIGITS = 6  # of its numbers


def error_curve(
    calibration: Calibration, widening: float, correlations: Sequence[float], files: Sequence[str]
) -> ErrorCurve:
    """Fit the curve of one band, or of all channels together.

    Args:
        calibration: the pixels, with deviations that were widened.
        widening: the factor by which they were; see `predicted_deviation`.
        correlations: rank correlation of deviations with errors, of each picture.
        files: the file of each picture.
    """
    counts, variances, squares = calibration.binned(POINTS)
    errors = rising(squares.tolist(), counts.tolist())
    low, high = mean_interval(correlations, files)
    return ErrorCurve(
        deviations=_rounded([math.sqrt(each) / widening for each in variances.tolist()]),
        errors=_rounded([math.sqrt(each) for each in errors]),
        correlation=fmean(correlations),
        low=low,
        high=high,
    )


def rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The nearest numbers that never fall, by weighted squares.

    Args:
        values: the numbers.
        weights: their weights, above 0.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, and how many numbers it stands for
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] >= mean:
            before, its_weight, its_count = pools.pop()
            mean = (before * its_weight + mean * total) / (its_weight + total)
            total, count = total + its_weight, count + its_count
        pools.append((mean, total, count))
    return [mean for mean, _, count in pools for _ in range(count)]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{each:.{DIGITS}g}") for each in values)
