"""The metadata of TIFF files in their fields outside EXIF."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import replace
from typing import BinaryIO

from PIL.TiffTags import BYTE, UNDEFINED

from cascade.imaging.exif_blocks import BIG_TIFF_VERSION
from cascade.imaging.metadata import Metadata
from cascade.imaging.photoshop_resources import (
    iptc_in_file_order,
    metadata_of_resources,
    write_resources,
)

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377  # tag numbers
ENTRY_BYTES = 12
BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4}


def read_tiff(data: bytes, at: int | None = None) -> Metadata:
    """Read the metadata of a page of a TIFF file; its `exif` is the whole file.

    Args:
        data: the file's bytes.
        at: offset of the page's directory in bytes; None for the first page.
    """
    fields = fields_as_bytes(io.BytesIO(data), at)
    metadata = metadata_of_resources(fields.get(PHOTOSHOP, b""))
    iptc = iptc_in_file_order(fields.get(IPTC, b""))
    return replace(metadata, exif=data, xmp=fields.get(XMP) or None, iptc=iptc or metadata.iptc)


def starting_at(data: bytes, offset: int) -> bytes:
    """A TIFF or BigTIFF file whose first directory is another one of its own.

    Args:
        data: the file's bytes.
        offset: position of the directory, in bytes.
    """
    if begins_at(data, offset):
        return data
    head = _head(data, offset)
    return head + data[len(head) :]


def begins_at(data: bytes, offset: int) -> bool:
    """Whether the directory at an offset is the first one of a TIFF or BigTIFF file."""
    return data.startswith(_head(data, offset))


def _head(data: bytes, offset: int) -> bytes:
    """The head of a TIFF or BigTIFF file whose first directory is at an offset."""
    order = "<" if data[:1] == b"I" else ">"
    at, kind = (8, "Q") if BIG_TIFF_VERSION in data[2:4] else (4, "L")
    return data[:at] + struct.pack(order + kind, offset)


def fields_as_bytes(file: BinaryIO, at: int | None = None) -> dict[int, bytes]:
    """Read the fields with metadata in a directory of a TIFF or BigTIFF file, as bytes.

    Some programs state that they are whole numbers of 32 bits, so their types do not count.

    Args:
        file: open for reading; where it is read afterwards is undefined.
        at: offset of the directory in bytes; None for that of the first page.

    Returns:
        Those of XMP, IPTC and Photoshop that the file holds whole, by their tags.
    """
    size_bytes = file.seek(0, os.SEEK_END)

    def read(at: int, length: int) -> bytes:
        file.seek(min(at, size_bytes))  # offsets of BigTIFF may be larger than a file can be
        return file.read(length)

    def unpacked(kinds: str, at: int) -> tuple[int, ...]:
        return struct.unpack(kinds, read(at, struct.calcsize(kinds)))

    head = read(0, 4)
    order = "<" if head[:1] == b"I" else ">"
    is_big = BIG_TIFF_VERSION in head[2:4]
    offset_type, count_type, entry_bytes = ("Q", "Q", 20) if is_big else ("L", "H", ENTRY_BYTES)
    fields = {}
    try:
        if at is None:
            (at,) = unpacked(order + offset_type, 8 if is_big else 4)
        (count,) = unpacked(order + count_type, at)
        first = at + struct.calcsize(order + count_type)
        for start in range(first, min(first + count * entry_bytes, size_bytes), entry_bytes):
            tag, kind, number = unpacked(order + "HH" + offset_type, start)
            length = number * BYTES_OF_TYPE.get(kind, 0)
            place = start + struct.calcsize(order + "HH" + offset_type)
            if length > struct.calcsize(order + offset_type):
                (place,) = unpacked(order + offset_type, place)
            if tag in (XMP, IPTC, PHOTOSHOP) and place + length <= size_bytes:
                fields[tag] = read(place, length)
    except struct.error:  # the directory ends too early
        pass
    return fields


def metadata_fields(metadata: Metadata) -> dict[int, tuple[int, bytes]]:
    """Type and value of the fields that hold metadata outside EXIF, by their tags."""
    photoshop = write_resources(metadata.photoshop)
    fields = {
        XMP: (BYTE, metadata.xmp),
        IPTC: (UNDEFINED, metadata.iptc),
        PHOTOSHOP: (BYTE, photoshop),
    }
    return {tag: (kind, value) for tag, (kind, value) in fields.items() if value}
