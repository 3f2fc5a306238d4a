"""Add EXIF, resolution and settings to a finished PNG, JPEG, WebP or TIFF file.

libvips writes the pixels and the ICC profile. It would pass EXIF through a library that drops the
fields it does not know and adds some of its own, and it cannot put EXIF into TIFF at all. So each
function here copies a file that libvips wrote and adds the metadata where the format keeps it.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from cascade.imaging.exif_blocks import HEADER, read_directories, write_directories
from cascade.imaging.resolution import RESOLUTION_TAGS

MAX_JPEG_EXIF_BYTES = 65533 - len(HEADER)
INCH_PER_M = 1 / 0.0254
JPEG_APP0, JPEG_APP1 = b"\xff\xe0", b"\xff\xe1"  # JFIF and EXIF
TIFF_ENTRY_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Metadata that is added to an image file.

    Attributes:
        exif: block without the header `Exif`, or None.
        dpi: pixels per inch, across and down, or None. WebP and TIFF hold it in `exif` instead.
        text: ASCII for the PNG text chunk `cascade`, or None; other formats ignore it.
        size: (H, W) in pixels.
    """

    exif: bytes | None
    dpi: tuple[float, float] | None
    text: str | None
    size: tuple[int, int]


def add_to_png(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a PNG; resolution (instead of that of the source), EXIF and text follow the header."""
    target.write(source.read(8 + 25))  # signature and IHDR
    target.write(_png_extras(extras))
    while True:
        head = source.read(8)
        length, name = struct.unpack(">L4s", head)
        if name == b"IDAT":
            break
        chunk = source.read(length + 4)
        if name != b"pHYs":
            target.write(head + chunk)
    target.write(head)
    shutil.copyfileobj(source, target)


def _png_extras(extras: Extras) -> bytes:
    chunks = b""
    if extras.dpi is not None:
        px_per_m = [round(value * INCH_PER_M) for value in extras.dpi]
        chunks += _png_chunk(b"pHYs", struct.pack(">LLB", *px_per_m, 1))
    if extras.exif is not None:
        chunks += _png_chunk(b"eXIf", extras.exif)
    if extras.text is not None:
        chunks += _png_chunk(b"tEXt", b"cascade\0" + extras.text.encode("ascii"))
    return chunks


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def add_to_jpeg(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a JPEG; a JFIF segment with the resolution and an EXIF segment come first."""
    target.write(source.read(2))
    unit, density = 0, (1, 1)  # square pixels of unknown size
    if extras.dpi is not None:
        unit, density = 1, tuple(max(1, round(value)) for value in extras.dpi)
    jfif = b"JFIF\0\1\1" + struct.pack(">BHHBB", unit, *density, 0, 0)
    target.write(_jpeg_segment(JPEG_APP0, jfif))
    if extras.exif is not None:
        target.write(_jpeg_segment(JPEG_APP1, HEADER + extras.exif))
    head = source.read(4)
    if head.startswith(JPEG_APP0):  # the one of libvips is left out
        source.seek(struct.unpack(">H", head[2:])[0] - 2, 1)
    else:
        target.write(head)
    shutil.copyfileobj(source, target)


def _jpeg_segment(marker: bytes, body: bytes) -> bytes:
    return marker + struct.pack(">H", 2 + len(body)) + body


def add_to_webp(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a WebP; EXIF comes last, and the first chunk announces it."""
    if extras.exif is None:
        shutil.copyfileobj(source, target)
        return
    end = source.seek(0, 2)
    source.seek(12)
    first = _webp_first_chunk(source, extras.size)
    last = b"EXIF" + struct.pack("<L", len(extras.exif)) + extras.exif
    last += bytes(len(last) % 2)
    length = 4 + len(first) + end - source.tell() + len(last)
    target.write(b"RIFF" + struct.pack("<L", length) + b"WEBP" + first)
    shutil.copyfileobj(source, target)
    target.write(last)


def _webp_first_chunk(source: BinaryIO, size: tuple[int, int]) -> bytes:
    """The chunk VP8X with the flag of EXIF: the one that follows in the source, or a new one."""
    exif_flag = 0x08
    if source.read(4) == b"VP8X":
        first = bytearray(b"VP8X" + source.read(14))
        first[8] |= exif_flag
        return bytes(first)
    source.seek(-4, 1)  # no such chunk: neither transparency nor a profile
    height, width = size
    lengths = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<LL", 10, exif_flag) + lengths


def add_to_tiff(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a TIFF; EXIF and a new main directory with the fields of both come last.

    The entries of the source are copied as bytes: what they point to stays where it is.
    """
    entries = _tiff_entries(source)
    for tag in RESOLUTION_TAGS:  # libvips always writes one
        entries.pop(tag, None)
    end = source.seek(0, 2)
    end += end % 2
    block = b""
    if extras.exif is not None:
        block = write_directories(read_directories(extras.exif), at=end)
        entries |= _entries_in(block)
    target.write(b"II*\0" + struct.pack("<L", end + len(block)))
    source.seek(8)
    shutil.copyfileobj(source, target)
    target.write(bytes(target.tell() % 2) + block + struct.pack("<H", len(entries)))
    target.write(b"".join(entries[tag] for tag in sorted(entries)) + bytes(4))


def _tiff_entries(source: BinaryIO) -> dict[int, bytes]:
    """The entries of the main directory of a little-endian TIFF file, by their tags."""
    source.seek(4)
    (start,) = struct.unpack("<L", source.read(4))
    source.seek(start)
    table = source.read(2)
    (count,) = struct.unpack("<H", table)
    return _entries_in(table + source.read(count * TIFF_ENTRY_BYTES))


def _entries_in(table: bytes) -> dict[int, bytes]:
    """Split a directory at the start of some bytes into its entries, by their tags."""
    (count,) = struct.unpack_from("<H", table)
    starts = range(2, 2 + count * TIFF_ENTRY_BYTES, TIFF_ENTRY_BYTES)
    entries = [table[start : start + TIFF_ENTRY_BYTES] for start in starts]
    return {struct.unpack_from("<H", entry)[0]: entry for entry in entries}
