"""Upscales images of bands of measured numbers, and gives them back as they came.

The result has the bands, the type, the range and the place of the input; its missing numbers are
where those of the input are.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import numpy as np
from torch import Tensor

from cascade.errors import ContractError
from cascade.imaging.rasters.raster import Raster, can_hold, outside_shares
from cascade.imaging.value_range import percentage
from cascade.mapped_arrays import new_array, release_pages, row_slices
from cascade.reporting.words import counted
from cascade.restoration.passes import upsamplers_of
from cascade.restoration.upscaling import Upscaling, upscaled_bands
from cascade.sampling.walk import Progress
from cascade.space import FEWEST_LEVELS, Space
from cascade.stage import Stage


def upscale_raster(
    stages: Sequence[Stage],
    raster: Raster,
    upscaling: Upscaling,
    *,
    progress: Progress | None = None,
) -> Raster:
    """Upscale an image of bands.

    Missing numbers are filled from their neighbours for the network, and are missing in the result.
    Numbers outside of the range of the stages are clipped; see `ClippedNumbers`.

    Args:
        stages: the stages of a pipeline, with at least one upsampler.
        raster: an image of any size with the bands of the stages.
        upscaling: how to upscale it.
        progress: called as `progress(done, total)` while stages run.

    Raises:
        ContractError: if bands or settings do not fit the stages, or memory is short.
        OutputError: if a very large image needs more temporary space than the disk has.
    """
    space = upsamplers_of(list(stages))[0].space
    check_bands(raster, space)
    image = raster.unit_image(space, clip=True)
    size, (bands,) = upscaled_bands(stages, [image], [upscaling.seed], upscaling, progress=progress)
    values = new_array((raster.bands, *size), raster.values.dtype)
    for rows, band in bands:
        values[:, rows] = as_stored(band[0], space, raster, _missing_rows(raster, size, rows))
        release_pages()
    height, width = raster.size
    origin = raster.origin and raster.origin.scaled(size[0] / height, size[1] / width)
    return replace(raster, values=values, origin=origin)


def check_bands(raster: Raster, space: Space) -> None:
    """Check that an image has the bands of a space.

    Raises:
        ContractError: if it has others.
    """
    if raster.bands != space.channels:
        raise ContractError(
            f"the image has {counted(raster.bands, 'band')}, but the model takes {space.channels}."
        )


@final
class ClippedNumbers:
    """Counts the images of a file whose numbers lie outside of the range, which clips them.

    Args:
        space: the space that has the range of each band.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._images = self._clipped = 0
        self._worst = (0.0, 0, 0)  # share, number of the band and of the image, from 0

    def add(self, raster: Raster) -> None:
        """Count an image."""
        shares = outside_shares(raster, self._space)
        band = max(range(len(shares)), key=shares.__getitem__)
        share = shares[band]
        self._clipped += share > 0
        if share > self._worst[0]:
            self._worst = (share, band, self._images)
        self._images += 1

    @property
    def remark(self) -> str:
        """How much is clipped, in words; empty if nothing is."""
        if not self._clipped:
            return ""
        share, band, image = self._worst
        low, high = self._space.ranges[band]
        where = f"band {band + 1} outside {low:g} to {high:g}"
        clipped = "has values outside the model's range, which are clipped: "
        if self._images == 1:
            return f"{clipped}{percentage(share)} of {where}"
        return (
            f"{clipped}in {self._clipped} of {self._images} images, most in image {image + 1}: "
            f"{percentage(share)} of {where}"
        )


def as_stored(
    image: Tensor, space: Space, raster: Raster, missing: np.ndarray | None = None
) -> np.ndarray:
    """The numbers of an image in the type of another one.

    Args:
        image: (C, H, W) in [-1, 1].
        space: its space.
        raster: the image whose type and number for missing ones it gets.
        missing: (C, H, W) bool, which numbers are missing; None for none.
    """
    dtype, nodata = raster.values.dtype, raster.nodata
    numbers = space.from_unit(image.double() if dtype.kind != "f" else image.float()).numpy()
    if dtype.kind != "f":
        ends = np.iinfo(dtype)
        numbers = np.rint(numbers).clip(ends.min, ends.max)
    stored = beside_missing(numbers.astype(dtype), nodata)
    if missing is not None and missing.any():
        stored[missing] = np.nan if nodata is None else nodata
    return stored


def beside_missing(values: np.ndarray, nodata: float | None) -> np.ndarray:
    """Change numbers in place that would look like a missing one to the nearest other number."""
    dtype = values.dtype
    if nodata is not None and not np.isnan(nodata) and can_hold(dtype, nodata):
        alike = values == (np.float32(nodata) if dtype.kind == "f" else nodata)
        values[alike] = _beside(nodata, dtype)
    return values


def raster_of(image: Tensor, space: Space) -> Raster:
    """An image that no file came before, in the smallest type that holds the range of its space.

    Args:
        image: (C, H, W) in [-1, 1].
        space: its space.
    """
    like = Raster(values=np.empty((space.channels, 1, 1), _smallest_dtype(space)))
    return replace(like, values=as_stored(image.cpu(), space, like))


def kind_of_results(raster: Raster, space: Space, result_space: Space) -> Raster:
    """The kind of image that a model makes from another one: its type, nodata and place.

    Args:
        raster: the image that the result is made from.
        space: space of that image.
        result_space: space of the result.

    Returns:
        The image itself if both spaces have the same bands and ranges, else an image of 1 px, which
        is missing if any number of the other one is. Its type is that of `raster_of`; but float32
        if that type cannot hold nodata, or the other image is float32 and may have NaN.
    """
    if space.ranges == result_space.ranges:
        return raster
    own_dtype, dtype, nodata = raster.values.dtype, _smallest_dtype(result_space), raster.nodata
    if nodata is not None and not can_hold(own_dtype, nodata):
        nodata = None  # no number of the image equals it
    if own_dtype.kind == "f" or (nodata is not None and not can_hold(dtype, nodata)):
        dtype = np.dtype("float32")
    origin = raster.origin and raster.origin.for_numbers(dtype, same_bands=False)
    values = np.zeros((result_space.channels, 1, 1), dtype)
    if any(raster.missing_rows(rows).any() for rows in row_slices(raster.values.shape)):
        values[:] = np.nan if nodata is None else nodata
    return Raster(values=values, nodata=nodata, origin=origin)


def _smallest_dtype(space: Space) -> np.dtype:
    """The smallest type that holds the range of a space.

    Returns:
        uint8, uint16 or int16 if the ends of all ranges are whole numbers that it holds, else
        float32.
    """
    ends = np.array(space.ranges)
    fits = [
        name
        for name in ("uint8", "uint16", "int16")
        if np.iinfo(name).min <= ends.min() and ends.max() <= np.iinfo(name).max
    ]
    is_whole = bool((ends == ends.round()).all()) and bool((np.diff(ends) >= FEWEST_LEVELS).all())
    return np.dtype(fits[0] if fits and is_whole else "float32")


def _beside(nodata: float, dtype: np.dtype) -> float:
    """The number nearest to one that a type can hold."""
    if dtype.kind == "f":
        return float(np.nextafter(np.float32(nodata), np.float32(0 if nodata else 1)))
    return nodata + 1 if nodata < np.iinfo(dtype).max else nodata - 1


def _missing_rows(raster: Raster, size: tuple[int, int], rows: slice) -> np.ndarray:
    """Which numbers of some rows of a result are missing: those of the nearest pixels of the input.

    Args:
        raster: the input.
        size: height and width of the result.
        rows: rows of the result.
    """
    y, x = (_nearest(own, new) for own, new in zip(raster.size, size, strict=True))
    y = y[rows]
    return raster.missing_rows(slice(int(y[0]), int(y[-1]) + 1))[:, y - y[0]][:, :, x]


def _nearest(own: int, new: int) -> np.ndarray:
    """The pixel of `own` ones whose centre is nearest to each of `new` ones."""
    return ((np.arange(new) + 0.5) * own / new).astype(np.int64).clip(max=own - 1)
