"""From a file to a `Raster`: recognises the format by the content, and counts the images.

TIFF, DICOM, NIfTI, `.npy` and `.npz` are read as they are. Every other format is one for colour
pictures and is read as such (`picture_reading.py`): grey is one band, colour three, and fully
transparent pixels are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES, format_of, read_bytes
from cascade.imaging.picture_reading import decode_picture
from cascade.imaging.rasters.arrays import NPY_HEAD, NPZ_HEAD, count_arrays, decode_array
from cascade.imaging.rasters.dicom import count_frames, decode_dicom, is_dicom
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.nifti import count_slices, decode_nifti, is_nifti
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.tiff_bands import count_tiff_images, decode_tiff_bands

RASTER_SUFFIXES = IMAGE_SUFFIXES | {
    ".btf", ".tf8", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz", ".npy", ".npz",
}  # fmt: skip
PICTURE = "picture"
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


def read_raster(path: Path, number: int = 0, layout: Layout | None = None) -> Raster:
    """Read an image of a file; see `decode_raster`.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    return decode_raster(read_bytes(path), str(path), number, layout)


def decode_raster(data: bytes, name: str, number: int = 0, layout: Layout | None = None) -> Raster:
    """Decode an image of a file.

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
    kind = raster_format(data, name)
    try:
        if kind == "TIFF":
            return decode_tiff_bands(data, name, number, layout)
        if kind == "DICOM":
            return decode_dicom(data, name, number)
        if kind == "NIfTI":
            return decode_nifti(data, name, number, layout)
        if kind == "numpy":
            return decode_array(data, name, number, layout)
        return _raster_of_picture(data, name)
    except DataError as error:
        raise error if str(error).startswith(name) else DataError(f"{name}: {error}") from error


def count_rasters(file: BinaryIO, name: str, layout: Layout | None = None) -> int:
    """Count the images of an open file, by its head where the format allows.

    Args:
        file: open at its start.
        name: the file's name, for error messages.
        layout: how the file is divided into images.

    Raises:
        DataError: as `decode_raster`.
    """
    layout = layout or Layout()
    kind = raster_format(file.read(HEAD_BYTES), name)
    file.seek(0)
    if kind == "TIFF":
        return count_tiff_images(file, name, layout)
    if kind == "DICOM":
        return count_frames(file, name)
    if kind == "NIfTI":
        return count_slices(file, name, layout)
    return count_arrays(file, name, layout) if kind == "numpy" else 1


def _raster_of_picture(data: bytes, name: str) -> Raster:
    """A colour picture or a grey one, in the numbers of its file."""
    picture = decode_picture(data, name)
    values = picture.colour.numpy()
    if picture.alpha is None or (picture.alpha != 0).all():
        return Raster(values=values)
    if picture.bits == 16:
        raise DataError(f"{name}: has transparency and 16 bits; save it as TIFF with nodata.")
    hidden = np.broadcast_to(picture.alpha.numpy() == 0, values.shape)
    return Raster(values=np.where(hidden, np.float32(np.nan), values.astype(np.float32)))
