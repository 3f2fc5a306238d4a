"""How image files of measured numbers become images for training.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from cascade.conditioning.batch import Remark
from cascade.data.preparation import CLIPPED, Outside
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster, can_hold, outside_shares
from cascade.imaging.rasters.reading import decode_raster
from cascade.imaging.value_range import percentage
from cascade.space import Space


class BandDecoding(NamedTuple):
    """How files of measured numbers become images for training.

    Attributes:
        bands: number of bands of every image; None for any.
        space: the space of the stage, which has the ranges; None for no ranges.
        outside: what happens to numbers outside of the range.
        nodata: the number that stands for a missing one, besides what the file says; None for none.
            A file whose type cannot hold it has none: the types of a folder may differ.
        axis: axis of a NIfTI volume along which it is cut into slices.
        missing: what happens to images with missing numbers.
    """

    bands: int | None = None
    space: Space | None = None
    outside: Outside = "clip"
    nodata: float | None = None
    axis: int = 2
    missing: Literal["refuse", "keep"] = "refuse"

    @classmethod
    def of_space(
        cls, space: Space, *, outside: Outside = "clip", nodata: float | None = None, axis: int = 2
    ) -> BandDecoding:
        """How files become images of a stage's space."""
        return cls(space.channels, space, outside, nodata, axis)

    @property
    def range(self) -> None:
        """No numbers become black and white: the range of bands is that of the space."""

    @property
    def layout(self) -> Layout:
        """How a file is divided into images."""
        return Layout(self.bands, self.axis)

    @property
    def check_words(self) -> list[str]:
        """The options of `cascade data check` that decode files in the same way."""
        words = [] if self.bands is None else ["--bands", str(self.bands)]
        words += [] if self.axis == Layout().axis else ["--axis", str(self.axis)]
        return words + ([] if self.nodata is None else ["--nodata", f"{self.nodata:g}"])

    def raster(self, data: bytes, name: str, number: int = 0) -> Raster:
        """Decode an image of a file, and check its bands.

        Args:
            data: the file's bytes.
            name: the file's name, for error messages.
            number: which image of the file, counted from 0.

        Raises:
            DataError: if it cannot be read, or has other bands than the stage.
        """
        raster = decode_raster(data, name, number, self.layout)
        if self.bands is not None and raster.bands != self.bands:
            raise DataError(
                f"{name}: has {_bands(raster.bands)}, but the stage takes {_bands(self.bands)}; "
                "save only those bands, or train a stage with that many channels."
            )
        is_possible = self.nodata is not None and can_hold(raster.values.dtype, self.nodata)
        return raster.with_nodata(self.nodata) if is_possible else raster

    def load(self, data: bytes, name: str, number: int) -> tuple[Tensor, tuple[Remark, ...]]:
        """An image (C, H, W) in [-1, 1], and remarks about it; see `raster` and `check`.

        Raises:
            DataError: as `raster` and `check`.
        """
        assert self.space is not None, "training states the ranges"
        raster = self.raster(data, name, number)
        remarks = self.check(raster, name)
        return raster.unit_image(self.space, clip=True), remarks

    def check(self, raster: Raster, name: str) -> tuple[Remark, ...]:
        """Check the numbers of an image, and remark what is clipped.

        Raises:
            DataError: if a number is missing, or lies outside of the range and may not.
        """
        missing = raster.missing if self.missing == "refuse" else None
        if missing is not None:
            raise DataError(
                f"{name}: {percentage(float(missing.mean()))} of its values are NaN or nodata; "
                "training needs images without missing values, so crop or fill such areas."
            )
        return () if self.space is None else self._outside(raster, self.space, name)

    def _outside(self, raster: Raster, space: Space, name: str) -> tuple[Remark, ...]:
        shares = outside_shares(raster, space)
        worst = max(range(len(shares)), key=shares.__getitem__)
        if shares[worst] == 0:
            return ()
        low, high = space.ranges[worst]
        values = raster.values[worst]
        text = (
            f"{name}: {percentage(shares[worst])} of the values of band {worst + 1} lie outside "
            f"{low:g} to {high:g}: they range from {values.min():g} to {values.max():g}"
        )
        if self.outside == "error":
            raise DataError(f"{text}; widen the range, or set outside=clip.")
        return (Remark(CLIPPED, f"{text}."),)


def _bands(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"
