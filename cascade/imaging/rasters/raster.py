"""Raster: an image of one or more bands of measured numbers, some of which may be missing.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.transparency import fill_hidden
from cascade.mapped_arrays import new_array, release_pages, row_slices
from cascade.space import MOST_BANDS, Space

FILLED_PX = 256  # around rows in which neighbours of missing numbers are looked for
DTYPES = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True, kw_only=True)
class Raster:
    """An image of measured numbers.

    Attributes:
        values: (C, H, W) uint8, uint16, int16 or float32.
        nodata: the number that stands for a missing one; NaN always does.
        origin: what its file says about it; None if there is no file, or it says nothing.

    Raises:
        DataError: if the values have another shape or type, or more than 64 bands.
    """

    values: np.ndarray
    nodata: float | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.values.shape, self.values.dtype
        if len(shape) != 3 or min(shape) < 1 or dtype not in DTYPES:
            raise DataError(
                f"an image of bands is (C, H, W) of {', '.join(DTYPES)}; got {shape} of {dtype}."
            )
        if shape[0] > MOST_BANDS:
            raise DataError(f"has {shape[0]} bands; at most {MOST_BANDS} are allowed.")

    @property
    def bands(self) -> int:
        """Number of bands."""
        return self.values.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def missing(self) -> np.ndarray | None:
        """Which numbers are NaN, infinite or nodata: (C, H, W) bool; None if all are there."""
        missing = self.missing_rows(slice(0, self.size[0]))
        return missing if missing.any() else None

    def missing_rows(self, rows: slice) -> np.ndarray:
        """Which numbers of some rows are missing: (C, rows, W) bool."""
        values = self.values[:, rows]
        missing = np.zeros(values.shape, bool)
        if values.dtype == np.float32:
            missing |= ~np.isfinite(values)
        if self.nodata is not None and not np.isnan(self.nodata):
            nodata = np.float32(self.nodata) if values.dtype == np.float32 else self.nodata
            missing |= np.equal(values, nodata)  # no whole number equals one out of its reach
        return missing

    def filled_rows(self, rows: slice) -> Tensor:
        """Some rows (C, rows, W) float32, in which missing numbers come from their neighbours."""
        values = torch.from_numpy(self.values[:, rows].astype(np.float32))
        missing = self.missing_rows(rows)
        if not missing.any():
            return values
        return torch.stack([_filled(*each) for each in zip(values, missing, strict=True)])

    def with_nodata(self, number: float | None) -> Raster:
        """The image in which a number stands for a missing one, besides what its file says.

        Args:
            number: it becomes `nodata` if the file has none that its type can hold; else its
                pixels get the file's number. None changes nothing.

        Raises:
            DataError: if the type can hold neither the number nor the one of the file.
        """
        if number is None:
            return self
        if self.nodata is None or not can_hold(self.values.dtype, self.nodata):
            _check_holds(self.values.dtype, number)
            return replace(self, nodata=number)
        if not can_hold(self.values.dtype, number):
            return self
        typed = self.values.dtype.type
        values = new_array(self.values.shape, self.values.dtype)
        for rows in row_slices(values.shape):
            part = self.values[:, rows]
            values[:, rows] = np.where(part == typed(number), typed(self.nodata), part)
            release_pages()
        return replace(self, values=values)

    def unit_image(self, space: Space, *, clip: bool = False) -> Tensor:
        """The image for a network: (C, H, W) float32.

        Missing numbers come from their neighbours in the same band.

        Args:
            space: the space whose range stands for -1 to 1.
            clip: whether to clip it to [-1, 1].
        """
        result = torch.from_numpy(new_array(self.values.shape, np.float32))
        for rows in row_slices(self.values.shape):
            around = slice(max(0, rows.start - FILLED_PX), rows.stop + FILLED_PX)
            inner = slice(rows.start - around.start, rows.stop - around.start)
            unit = space.to_unit(self.filled_rows(around)[:, inner])
            result[:, rows] = unit.clamp_(-1, 1) if clip else unit
            release_pages()
        return result


def check_dtype(dtype: Any, name: str) -> None:
    """Check the type of the numbers of a file.

    Raises:
        DataError: naming the types that are read, if it is none of them.
    """
    if str(dtype) not in DTYPES:
        advice = "float32" if np.dtype(dtype).kind == "f" else "uint16, int16 or float32"
        raise DataError(
            f"{name}: holds values of type {np.dtype(dtype).name}, but {', '.join(DTYPES)} are "
            f"read; save it as {advice}."
        )


def can_hold(dtype: np.dtype, number: float) -> bool:
    """Whether pixels of a type can have a number, as one for missing ones that a file states."""
    if dtype.kind == "f":
        return True
    ends = np.iinfo(dtype)
    return number == np.round(number) and ends.min <= number <= ends.max


def _check_holds(dtype: np.dtype, number: float) -> None:
    if not can_hold(dtype, number):
        ends = np.iinfo(dtype)
        raise DataError(
            f"no value of type {dtype.name} can be {number:g}, so it cannot mark missing values; "
            f"state a whole number from {ends.min} to {ends.max}, or none."
        )


def outside_shares(raster: Raster, space: Space) -> list[float]:
    """Share of the numbers of each band, missing ones aside, that lie outside of the range.

    Args:
        raster: the image, with the bands of the space.
        space: the space that has the range of each band.
    """
    outside, present = np.zeros((2, raster.bands), np.int64)
    ends = np.array(space.ranges)[:, :, None, None]  # (C, 2, 1, 1)
    for rows in row_slices(raster.values.shape):
        values, is_present = raster.values[:, rows], ~raster.missing_rows(rows)
        is_outside = (values < ends[:, 0]) | (values > ends[:, 1])
        outside += np.count_nonzero(is_outside & is_present, axis=(1, 2))
        present += np.count_nonzero(is_present, axis=(1, 2))
        release_pages()
    return (outside / present.clip(min=1)).tolist()


def _filled(band: Tensor, missing: np.ndarray) -> Tensor:
    """A band (H, W) with its missing numbers filled from their neighbours, or by 0 if none is."""
    if missing.all():
        return torch.zeros_like(band)
    alpha = torch.from_numpy(~missing)[None].float()
    return fill_hidden(torch.where(alpha[0] > 0, band, 0)[None], alpha)[0]
