"""NIfTI volumes as images of bands: slices along an axis, by nibabel.

A volume of more than three dimensions has the slices of each further place one after another. If
its fourth axis is as long as an image has bands, they are the bands of one image.

A slice along the last axis has the volume's second axis from top to bottom and its first one from
left to right, as stored.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, final

import numpy as np
from numpy.typing import DTypeLike

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.nifti_mark import read_nifti_mark
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.rasters.packages import imported, silenced
from cascade.imaging.rasters.raster import Raster, check_dtype
from cascade.imaging.rasters.raster_file import MAX_BYTES, RasterFile, too_large

GZIP = b"\x1f\x8b"
MARKS = ((344, b"n+1\0"), (4, b"n+2\0"))  # of both versions, at an offset in bytes
HEAD_BYTES = 348


@final
@dataclass(frozen=True, kw_only=True)
class NiftiOrigin(Origin):
    """The volume that a slice comes from.

    Attributes:
        image: a nibabel image.
        layout: how it was cut into slices.
        factors: by which the two axes of a slice have grown, the volume's earlier axis first.
        dtype: type in which numbers are written; None to write them as the volume stores its own.
        is_generated: whether the file says that a model drew it from noise.
    """

    image: Any
    layout: Layout
    factors: tuple[float, float] = (1.0, 1.0)
    dtype: np.dtype | None = None
    is_generated: bool = False

    format = "NIfTI"

    def scaled(self, factor_y: float, factor_x: float) -> NiftiOrigin:
        first, second = self.factors
        return replace(self, factors=(first * factor_x, second * factor_y))

    def for_numbers(self, dtype: DTypeLike, *, same_bands: bool = True) -> NiftiOrigin:
        return replace(self, dtype=np.dtype(dtype))

    @property
    def bands(self) -> int:
        """Number of bands of each slice."""
        return self.image.shape[3] if bands_are_an_axis(self.image, self.layout) else 1

    @property
    def affine(self) -> np.ndarray:
        """The matrix (4, 4) from voxels to space, with the bounds of the volume unchanged."""
        inner = [axis for axis in range(3) if axis != self.layout.axis]
        to_old = np.eye(4)
        for axis, factor in zip(inner, self.factors, strict=True):
            to_old[axis, axis] = 1 / factor
            to_old[axis, 3] = 0.5 / factor - 0.5  # voxels are counted by their centres
        return self.image.affine @ to_old


def is_nifti(data: bytes) -> bool:
    """Whether a file is NIfTI, packed or not."""
    if data.startswith(GZIP):
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(HEAD_BYTES)
        except (OSError, EOFError, zlib.error):
            return False
    return any(data[at : at + len(mark)] == mark for at, mark in MARKS)


def open_nifti(data: bytes, name: str) -> Any:
    """Open a file as a nibabel image.

    Raises:
        DataError: if it is damaged, too large, or of a kind that is not read.
    """
    nibabel = imported("nibabel", "NIfTI", name)
    with opening.readable(name), silenced("nibabel"):
        if data.startswith(GZIP):
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise too_large(name)
        kinds = {True: nibabel.Nifti2Image, False: nibabel.Nifti1Image}
        image = kinds[data[4:8] == MARKS[1][1]].from_bytes(data)
        if len(image.shape) not in (2, 3, 4, 5) or math.prod(image.shape) < 1:
            raise DataError(f"{name}: has the shape {image.shape}; volumes have 2 to 5 axes.")
        if not is_scaled(image):
            check_dtype(stored_dtype(image), name)
    return image


def stored_dtype(image: Any) -> np.dtype:
    """The type of the stored numbers of a nibabel image, in the order of this machine's bytes."""
    return image.get_data_dtype().newbyteorder("=")


def is_scaled(image: Any) -> bool:
    """Whether stored numbers are multiplied by a slope and shifted by an intercept."""
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return (float(slope), float(intercept)) != (1.0, 0.0)


def bands_are_an_axis(image: Any, layout: Layout) -> bool:
    """Whether the fourth axis of a volume holds the bands of an image."""
    return len(image.shape) == 4 and image.shape[3] == layout.bands and image.shape[3] > 1


def slices_of(image: Any, layout: Layout, name: str) -> list[tuple[Any, ...]]:
    """The place of each image of a volume: an index per axis, with a slice where it extends.

    Args:
        image: a nibabel image.
        layout: the axis to cut along, and the number of bands.
        name: the file's name, for error messages.

    Raises:
        DataError: if there is no such axis, or the volume has too many slices.
    """
    shape = (*image.shape, *(1,) * (3 - len(image.shape)))
    if layout.axis not in (0, 1, 2):
        raise DataError(f"{name}: a volume has the axes 0, 1 and 2, not {layout.axis}.")
    has_bands = bands_are_an_axis(image, layout)
    outer = () if has_bands else shape[3:]
    opening.check_page_count(math.prod(outer) * shape[layout.axis], name)
    places = []
    for index in np.ndindex(*outer[::-1]):
        for number in range(shape[layout.axis]):
            place: list[Any] = [slice(None)] * 3
            place[layout.axis] = number
            places.append((*place, *([slice(None)] if has_bands else index[::-1])))
    return places


@final
class NiftiFile(RasterFile):
    """An opened volume, unpacked once.

    Args:
        file: open at its start.
        name: the file's name, for error messages.
        layout: the axis to cut along, and the number of bands.

    Raises:
        DataError: if the file cannot be read.
    """

    unit = "slice"

    def __init__(self, file: BinaryIO, name: str, layout: Layout) -> None:
        super().__init__(name)
        self._image, self._layout = open_nifti(file.read(), name), layout
        self._places = slices_of(self._image, layout, name)

    def __len__(self) -> int:
        return len(self._places)

    def decoded(self, number: int) -> Raster:
        image = self._image
        with opening.readable(self.name):
            place = self._places[number][: len(image.shape)]
            values = np.asarray(image.dataobj[place])
            dtype = np.float32 if is_scaled(image) else stored_dtype(image)
            values = values.astype(dtype, copy=False)
        values = values.reshape(*values.shape, *(1,) * (3 - values.ndim))  # (X, Y, C)
        is_generated = read_nifti_mark(image.header).is_generated
        origin = NiftiOrigin(image=image, layout=self._layout, is_generated=is_generated)
        return Raster(values=np.ascontiguousarray(values.transpose(2, 1, 0)), origin=origin)
