"""From a file to a `Raster`: recognises the format by the content, and counts the images.

TIFF, DICOM, NIfTI, `.npy` and `.npz` are read as they are. Every other format is one for colour
pictures and is read as such (`picture_reading.py`): grey is one band, colour three, and fully
transparent pixels are missing. Of its metadata, only the mark that a model drew it counts.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from cascade.errors import DataError
from cascade.imaging.marks import says_generated
from cascade.imaging.opening import IMAGE_SUFFIXES, format_of, read_bytes
from cascade.imaging.picture_reading import decode_picture
from cascade.imaging.rasters.arrays import NPY_HEAD, NPZ_HEAD, ArrayFile
from cascade.imaging.rasters.dicom import DicomFile, is_dicom
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.nifti import NiftiFile, is_nifti
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.raster_file import RasterFile
from cascade.imaging.rasters.tiff_bands import TiffBandsFile
from cascade.imaging.rasters.tiff_origin import TiffOrigin

RASTER_SUFFIXES = IMAGE_SUFFIXES | {
    ".btf", ".tf8", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".npy", ".npz",
}  # fmt: skip
PICTURE = "picture"
VOLUMES = {"DICOM", "NIfTI", "numpy"}  # packed as a whole
HEAD_BYTES = 4096  # by which the format is recognised


def suffix_of(name: str) -> str:
    """The suffix of a file's name in small letters, `.nii.gz` in one piece."""
    lower = name.lower()
    return ".nii.gz" if lower.endswith(".nii.gz") else Path(lower).suffix


def raster_format(data: bytes, name: str) -> str:
    """Recognise the format of a file: TIFF, DICOM, NIfTI, numpy, or `picture` for others.

    Raises:
        DataError: if it is none that is read.
    """
    if is_dicom(data):
        return "DICOM"
    if is_nifti(data):
        return "NIfTI"
    if data.startswith((NPY_HEAD, NPZ_HEAD)):
        return "numpy"
    return "TIFF" if format_of(data, name) == "TIFF" else PICTURE


def read_raster(path: str | Path, number: int = 0, layout: Layout | None = None) -> Raster:
    """Read an image of a file.

    Args:
        path: the file.
        number: which image of a stack or volume, counted from 0.
        layout: how the file is divided into images, see `Layout`; default: volumes of NIfTI along
            their last axis.

    Raises:
        DataError: if the file cannot be read, or as `decode_raster`.
    """
    return decode_raster(read_bytes(Path(path)), str(path), number, layout)


def decode_raster(data: bytes, name: str, number: int = 0, layout: Layout | None = None) -> Raster:
    """Decode an image of a file. The last volume stays unpacked for its next slice.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.
        number: which image of a stack or volume, counted from 0; see `count_rasters`.
        layout: how the file is divided into images.

    Raises:
        DataError: if it is not an image, is damaged, is too large, has numbers of a type that is
            not read, or has no such image.
    """
    layout = layout or Layout()
    if raster_format(data, name) in VOLUMES:
        return _last_volume(data, name, layout).image(number)
    return open_rasters(io.BytesIO(data), name, layout).image(number)


def open_rasters(file: BinaryIO, name: str, layout: Layout) -> RasterFile:
    """Open a file to decode several of its images, of which it unpacks what they share once.

    Args:
        file: open at its start; it must stay open.
        name: the file's name, for error messages.
        layout: how the file is divided into images.

    Raises:
        DataError: if it is not an image, is damaged or is too large.
    """
    kind = raster_format(file.read(HEAD_BYTES), name)
    file.seek(0)
    if kind == "TIFF":
        return TiffBandsFile(file, name, layout)
    if kind == "DICOM":
        return DicomFile(file, name)
    if kind == "NIfTI":
        return NiftiFile(file, name, layout)
    return ArrayFile(file, name, layout) if kind == "numpy" else _PictureFile(file, name)


def count_rasters(file: BinaryIO, name: str, layout: Layout | None = None) -> int:
    """Count the images of an open file, by its head where the format allows.

    Args:
        file: open at its start.
        name: the file's name, for error messages.
        layout: how the file is divided into images.

    Raises:
        DataError: as `decode_raster`.
    """
    return len(open_rasters(file, name, layout or Layout()))


@lru_cache(maxsize=1)
def _last_volume(data: bytes, name: str, layout: Layout) -> RasterFile:
    return open_rasters(io.BytesIO(data), name, layout)


@final
class _PictureFile(RasterFile):
    """An opened picture of another format, the first of its frames."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(name)
        self._file = file

    def __len__(self) -> int:
        return 1

    def decoded(self, number: int) -> Raster:
        self._file.seek(0)
        return _raster_of_picture(self._file.read(), self.name)


def _raster_of_picture(data: bytes, name: str) -> Raster:
    """A colour picture or a grey one, in the numbers of its file."""
    picture = decode_picture(data, name)
    is_generated = says_generated(picture.metadata.xmp)
    origin = TiffOrigin(tags={}, is_generated=True) if is_generated else None
    values = picture.colour.numpy()
    if picture.alpha is None or (picture.alpha != 0).all():
        return Raster(values=values, origin=origin)
    if picture.bits == 16:
        raise DataError(f"{name}: has transparency and 16 bits; save it as TIFF with nodata.")
    hidden = np.broadcast_to(picture.alpha.numpy() == 0, values.shape)
    values = np.where(hidden, np.float32(np.nan), values.astype(np.float32))
    return Raster(values=values, origin=origin)
