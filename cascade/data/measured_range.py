"""Measures the range of each band over all training images, once, by percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cascade.data.band_decoding import BandDecoding
from cascade.data.source import ImageSource
from cascade.errors import DataError
from cascade.space import Range

SAMPLED_NUMBERS = 2**20  # of each band, from all images together
JOINED_IMAGES = 2**10  # whose numbers become one array, since small arrays take much room


def measured_ranges(
    source: ImageSource, decoding: BandDecoding, percentiles: Sequence[float]
) -> tuple[Range, ...]:
    """Measure between which numbers each band lies. Missing numbers and broken images are left out.

    Evenly spread pixels of every image are looked at, fewer of each if there are many images, so
    that memory does not grow with their number. Ends of whole numbers are rounded outwards.

    Args:
        source: all training images.
        decoding: how files are read, of a known number of bands.
        percentiles: the lower one and the upper one, in percent.

    Raises:
        DataError: if no image can be read, or the ends of a band are equal.
    """
    assert decoding.bands is not None
    samples: list[list[np.ndarray]] = [[] for _ in range(decoding.bands)]
    count = max(1, SAMPLED_NUMBERS // len(source))
    reasons = []
    for index in range(len(source)):
        try:
            raster = decoding.raster(
                source.read(index), source.name(index), source.number_in_file(index)
            )
        except DataError as error:
            reasons.append(str(error))
            continue
        missing = raster.missing
        for band, values in enumerate(raster.values):
            numbers = values.reshape(-1) if missing is None else values[~missing[band]]
            samples[band].append(_spread(numbers, count, index))
            if len(samples[band]) == JOINED_IMAGES:
                samples[band] = [np.concatenate(samples[band])]
    if len(reasons) == len(source):
        raise DataError(f"none of the {len(source)} images can be used: {reasons[0]}")
    return tuple(
        _ends(np.concatenate(each), percentiles, band) for band, each in enumerate(samples)
    )


def _spread(numbers: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many of an image's numbers, drawn so that they follow neither rows nor columns."""
    if numbers.size <= count:
        return numbers
    return np.random.default_rng(seed).choice(numbers, count, replace=False)


def _ends(values: np.ndarray, percentiles: Sequence[float], band: int) -> Range:
    low, high = map(float, np.percentile(values, percentiles)) if values.size else (0.0, 0.0)
    if values.dtype.kind in "ui":
        low, high = float(math.floor(low)), float(math.ceil(high))
    if not low < high:
        raise DataError(
            f"band {band + 1} has the value {low:g} at both percentiles; state its range, or "
            "leave the band out."
        )
    return low, high
