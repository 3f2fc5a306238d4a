"""How image files of measured numbers become images for training.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from cascade.conditioning.batch import Remark
from cascade.data.preparation import CLIPPED, MASKED, DecodedImage, Outside
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster, can_hold, outside_shares
from cascade.imaging.rasters.reading import decode_raster
from cascade.imaging.value_range import percentage
from cascade.space import Space

Missing = Literal["refuse", "mask"]  # what training does with missing values


class BandDecoding(NamedTuple):
    """How files of measured numbers become images for training.

    Attributes:
        bands: number of bands of every image; None for any.
        space: the space of the stage, which has the ranges; None for no ranges.
        outside: what happens to numbers outside of the range.
        nodata: the number that stands for a missing one, besides what the file says; None for none.
            A file whose type cannot hold it has none: the types of a folder may differ.
        axis: axis of a NIfTI volume along which it is cut into slices.
        missing: what happens to images with missing numbers: `refuse`; `mask` fills them and notes
            where they are; `keep` leaves them as they are, for files that no network sees.
    """

    bands: int | None = None
    space: Space | None = None
    outside: Outside = "clip"
    nodata: float | None = None
    axis: int = 2
    missing: Missing | Literal["keep"] = "refuse"

    @classmethod
    def of_space(
        cls,
        space: Space,
        *,
        outside: Outside = "clip",
        nodata: float | None = None,
        axis: int = 2,
        missing: Missing = "refuse",
    ) -> BandDecoding:
        """How files become images of a stage's space."""
        return cls(space.channels, space, outside, nodata, axis, missing)

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
        words += [] if self.nodata is None else ["--nodata", f"{self.nodata:g}"]
        return words + (["--missing", self.missing] if self.missing == "mask" else [])

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

    def load(self, data: bytes, name: str, number: int) -> DecodedImage:
        """An image (C, H, W) in [-1, 1], and remarks about it; see `raster` and `check`.

        Missing numbers are filled as for a network that upscales the image.

        Raises:
            DataError: as `raster` and `check`.
        """
        assert self.space is not None, "training states the ranges"
        raster = self.raster(data, name, number)
        remarks = self.check(raster, name)
        missing = raster.missing if self.missing == "mask" else None
        known = None if missing is None else torch.from_numpy(~missing)
        return DecodedImage(raster.unit_image(self.space, clip=True), remarks, known)

    def check(self, raster: Raster, name: str) -> tuple[Remark, ...]:
        """Check the numbers of an image, and remark what is missing or clipped.

        Raises:
            DataError: if a number is missing, or lies outside of the range and may not; or if
                missing ones are masked, and all are missing.
        """
        missing = None if self.missing == "keep" else raster.missing
        masked: tuple[Remark, ...] = ()
        if missing is not None:
            text = f"{name}: {percentage(float(missing.mean()))} of its values are NaN or nodata"
            if self.missing == "refuse":
                raise DataError(
                    f"{text}; crop or fill such areas, or train with data.missing=mask, which "
                    "leaves them out of the loss."
                )
            if missing.all():
                raise DataError(f"{text}, so that nothing can be learned from it; leave it out.")
            masked = (Remark(MASKED, f"{text}."),)
        return masked if self.space is None else masked + self._outside(raster, self.space, name)

    def _outside(self, raster: Raster, space: Space, name: str) -> tuple[Remark, ...]:
        shares = outside_shares(raster, space)
        worst = max(range(len(shares)), key=shares.__getitem__)
        if shares[worst] == 0:
            return ()
        low, high = space.ranges[worst]
        values = raster.values[worst]
        if self.missing != "refuse" and (missing := raster.missing) is not None:
            values = values[~missing[worst]]
        text = (
            f"{name}: {percentage(shares[worst])} of the values of band {worst + 1} lie outside "
            f"{low:g} to {high:g}: they range from {values.min():g} to {values.max():g}"
        )
        if self.outside == "error":
            raise DataError(f"{text}; widen the range, or set outside=clip.")
        return (Remark(CLIPPED, f"{text}."),)


def _bands(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"
