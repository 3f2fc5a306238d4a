"""Reads back how a file was made, whether it holds a colour picture or bands."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.marks import mark_of
from cascade.imaging.metadata_reading import read_metadata, xmp_of_tiff
from cascade.imaging.opening import opened_image, read_bytes
from cascade.imaging.picture_writing import settings_in
from cascade.imaging.rasters.arrays import NPZ_HEAD, read_npz_mark
from cascade.imaging.rasters.dicom_mark import read_dicom_mark
from cascade.imaging.rasters.file_mark import ReadMark
from cascade.imaging.rasters.nifti import GZIP, MARKS
from cascade.imaging.rasters.nifti_mark import read_nifti_mark
from cascade.imaging.rasters.packages import imported, silenced
from cascade.imaging.rasters.reading import PICTURE, raster_format
from cascade.imaging.xmp_packets import PacketError

MOST_HEADER_BYTES = 2**24  # of a volume, with the extensions of all programs


def read_mark(path: Path) -> ReadMark:
    """Read the mark and the record of a file; the heads of files of bands suffice for it.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    return mark_in(read_bytes(path), str(path))


def mark_in(data: bytes, name: str) -> ReadMark:
    """Read the mark and the record in the bytes of a file; see `read_mark`.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: if the file is not an image.
    """
    kind = raster_format(data, name)
    if kind == "DICOM":
        with opening.readable(name):
            pydicom = imported("pydicom", "DICOM", name)
            head = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
            if "Rows" not in head:
                raise DataError(f"{name}: a DICOM file without an image, or a damaged one.")
            return read_dicom_mark(head)
    if kind == "NIfTI":
        return _of_nifti(data, name)
    if kind == "numpy":
        return read_npz_mark(data, name) if data.startswith(NPZ_HEAD) else ReadMark({}, {})
    record = settings_in(data, name) or {}
    if kind == PICTURE:
        with opened_image(data, name) as image:
            xmp = read_metadata(data, image.info).xmp
    else:
        xmp = xmp_of_tiff(io.BytesIO(data))
    try:
        return ReadMark(mark_of(xmp), record)
    except PacketError:
        return ReadMark({}, record)


def _of_nifti(data: bytes, name: str) -> ReadMark:
    """The mark in the header of a volume, whose numbers stay packed.

    A file states how long its header is, and a short packed one can unpack to any length, so that
    headers longer than `MOST_HEADER_BYTES` are not read.
    """
    with opening.readable(name), silenced("nibabel"):
        nibabel = imported("nibabel", "NIfTI", name)
        packed = io.BytesIO(data)
        with gzip.open(packed) if data.startswith(GZIP) else packed as file:
            head = file.read(MOST_HEADER_BYTES)
        is_second = head[4:8] == MARKS[1][1]
        kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
        if float(kind(head[: kind.sizeof_hdr])["vox_offset"]) > MOST_HEADER_BYTES:
            return ReadMark({}, {})
        return read_nifti_mark(kind.from_fileobj(io.BytesIO(head)))
