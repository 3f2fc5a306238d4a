"""The metadata of TIFF files: read from their fields, and added to files that libvips wrote."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from typing import BinaryIO

from PIL.TiffTags import BYTE, UNDEFINED

from cascade.imaging.exif_blocks import MAIN, read_directories, set_field, write_directories
from cascade.imaging.extras import Extras
from cascade.imaging.metadata import Metadata
from cascade.imaging.photoshop_resources import (
    iptc_in_file_order,
    metadata_of_resources,
    write_resources,
)
from cascade.imaging.resolution import RESOLUTION_TAGS

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
XMP, IPTC, PHOTOSHOP = 700, 33723, 34377  # tag numbers
ENTRY_BYTES = 12


def read_tiff(data: bytes) -> Metadata:
    """Read the metadata of a TIFF file; its `exif` is the whole file."""
    fields = read_directories(data)[MAIN]
    order = ">" if data[:1] == b"M" else "<"
    metadata = metadata_of_resources(_field_bytes(fields.get(PHOTOSHOP), order))
    iptc = iptc_in_file_order(_field_bytes(fields.get(IPTC), order))
    xmp = _field_bytes(fields.get(XMP), order)
    return replace(metadata, exif=data, xmp=xmp or None, iptc=iptc or metadata.iptc)


def _field_bytes(value: object, order: str) -> bytes:
    """The bytes of a field, also if it states that they are whole numbers of 32 bits."""
    if isinstance(value, bytes):
        return value
    numbers = value if isinstance(value, tuple) else (value,)
    if len(numbers) == 1 and isinstance(numbers[0], bytes):
        return numbers[0]
    if all(isinstance(each, int) and 0 <= each < 2**32 for each in numbers):
        return struct.pack(f"{order}{len(numbers)}L", *numbers)
    return b""


def add_to_tiff(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a TIFF; metadata and a new main directory with the fields of both come last.

    The entries of the source are copied as bytes: what they point to stays where it is.
    """
    entries = _entries(source)
    for tag in RESOLUTION_TAGS:  # libvips always writes one
        entries.pop(tag, None)
    end = source.seek(0, 2)
    end += end % 2
    directories = read_directories(extras.exif or b"")
    for tag, (kind, value) in _fields(extras.metadata).items():
        set_field(directories[MAIN], tag, kind, value)
    block = b""
    if any(directories.values()):
        block = write_directories(directories, at=end)
        entries |= _entries_in(block)
    target.write(b"II*\0" + struct.pack("<L", end + len(block)))
    source.seek(8)
    shutil.copyfileobj(source, target)
    target.write(bytes(target.tell() % 2) + block + struct.pack("<H", len(entries)))
    target.write(b"".join(entries[tag] for tag in sorted(entries)) + bytes(4))


def _fields(metadata: Metadata) -> dict[int, tuple[int, bytes]]:
    """Type and value of the fields that hold metadata outside EXIF, by their tags."""
    photoshop = write_resources(metadata.photoshop)
    fields = {
        XMP: (BYTE, metadata.xmp),
        IPTC: (UNDEFINED, metadata.iptc),
        PHOTOSHOP: (BYTE, photoshop),
    }
    return {tag: (kind, value) for tag, (kind, value) in fields.items() if value}


def _entries(source: BinaryIO) -> dict[int, bytes]:
    """The entries of the main directory of a little-endian TIFF file, by their tags."""
    source.seek(4)
    (start,) = struct.unpack("<L", source.read(4))
    source.seek(start)
    table = source.read(2)
    (count,) = struct.unpack("<H", table)
    return _entries_in(table + source.read(count * ENTRY_BYTES))


def _entries_in(table: bytes) -> dict[int, bytes]:
    """Split a directory at the start of some bytes into its entries, by their tags."""
    (count,) = struct.unpack_from("<H", table)
    starts = range(2, 2 + count * ENTRY_BYTES, ENTRY_BYTES)
    entries = [table[start : start + ENTRY_BYTES] for start in starts]
    return {struct.unpack_from("<H", entry)[0]: entry for entry in entries}
