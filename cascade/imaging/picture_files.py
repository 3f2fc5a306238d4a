"""Where PNG, JPEG, WebP and TIFF files hold EXIF, resolution and texts.

libvips writes the pixels and the ICC profile. It would pass EXIF through a library that drops
fields it does not know and adds ones of its own, and it cannot put EXIF into TIFF; so the blocks
are added here, by copying its file with them in their place.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from cascade.imaging.exif import (
    HEADER,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    resolution_fields,
)
from cascade.imaging.tiff_fields import read_fields, write_fields

MAX_JPEG_EXIF_BYTES = 65533 - len(HEADER)
INCH_PER_M = 1 / 0.0254


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is added to a file of pixels.

    Attributes:
        exif: block without the header `Exif`.
        dpi: pixels per inch across and down.
        text: ASCII, for the PNG text chunk `cascade`.
        size: (H, W) in pixels.
    """

    exif: bytes | None
    dpi: tuple[float, float] | None
    text: str | None
    size: tuple[int, int]


def add_to_png(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a PNG; resolution (in place of that of the source), EXIF and text follow its header."""
    target.write(source.read(8 + 25))  # signature and IHDR
    if extras.dpi is not None:
        per_m = [round(value * INCH_PER_M) for value in extras.dpi]
        target.write(_png_chunk(b"pHYs", struct.pack(">LLB", *per_m, 1)))
    if extras.exif is not None:
        target.write(_png_chunk(b"eXIf", extras.exif))
    if extras.text is not None:
        target.write(_png_chunk(b"tEXt", b"cascade\0" + extras.text.encode("ascii")))
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


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))


def add_to_jpeg(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a JPEG; a JFIF segment with the resolution and an EXIF segment come first."""
    target.write(source.read(2))
    unit, density = 0, (1, 1)  # of unknown scale, square
    if extras.dpi is not None:
        unit, density = 1, tuple(max(1, round(value)) for value in extras.dpi)
    jfif = b"JFIF\0\1\1" + struct.pack(">BHHBB", unit, *density, 0, 0)
    target.write(b"\xff\xe0" + struct.pack(">H", 2 + len(jfif)) + jfif)
    if extras.exif is not None:
        segment = HEADER + extras.exif
        target.write(b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment)
    head = source.read(4)
    if head.startswith(b"\xff\xe0"):
        source.seek(struct.unpack(">H", head[2:])[0] - 2, 1)
    else:
        target.write(head)
    shutil.copyfileobj(source, target)


def add_to_webp(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a WebP; EXIF comes last, and the first chunk says that it is there."""
    source.seek(0, 2)
    end = source.tell()
    source.seek(12)
    name = source.read(4)
    source.seek(12)
    if extras.exif is None:
        source.seek(0)
        shutil.copyfileobj(source, target)
        return
    exif_flag = 0x08
    if name == b"VP8X":
        first = bytearray(source.read(18))
        first[8] |= exif_flag
    else:  # neither transparency nor a profile
        height, width = extras.size
        first = b"VP8X" + struct.pack("<LL", 10, exif_flag)
        first += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    last = b"EXIF" + struct.pack("<L", len(extras.exif)) + extras.exif
    last += bytes(len(last) % 2)
    size = 4 + len(first) + end - source.tell() + len(last)
    target.write(b"RIFF" + struct.pack("<L", size) + b"WEBP" + first)
    shutil.copyfileobj(source, target)
    target.write(last)


def add_to_tiff(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a TIFF; a new first directory with the fields of both comes last."""
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        fields = read_fields(data)
    for tag in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT):
        fields.pop(tag, None)
    if extras.exif is not None:
        fields |= read_fields(extras.exif)
    if extras.dpi is not None:
        fields |= resolution_fields(extras.dpi)
    source.seek(0, 2)
    end = source.tell() + source.tell() % 2
    source.seek(8)
    target.write(b"II*\0" + struct.pack("<L", end))
    shutil.copyfileobj(source, target)
    target.write(bytes(target.tell() % 2) + write_fields(fields, end))
