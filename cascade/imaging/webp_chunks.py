"""The metadata of WebP files: read from their chunks, and added to files that libvips wrote."""

from __future__ import annotations

import shutil
import struct
from typing import BinaryIO

from cascade.imaging.exif_blocks import HEADER
from cascade.imaging.extras import Extras
from cascade.imaging.metadata import Loss, Metadata

EXIF_FLAG, XMP_FLAG = 0x08, 0x04
C2PA = Loss("content credentials", "they are signed for the old pixels")


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP files do."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp(data: bytes) -> Metadata:
    """Read the metadata of a WebP file; it ends at the first damaged chunk."""
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sL", data, at)
        if at + 8 + length > len(data):
            break
        if name in (b"EXIF", b"XMP ", b"C2PA"):
            chunks.setdefault(name, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    exif = chunks.get(b"EXIF", b"").removeprefix(HEADER)
    return Metadata(
        exif=exif or None,
        xmp=chunks.get(b"XMP ") or None,
        losses=(C2PA,) if b"C2PA" in chunks else (),
    )


def add_to_webp(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a WebP; EXIF and XMP come last, and the first chunk announces them."""
    last, flags = b"", 0
    for name, flag, body in (
        (b"EXIF", EXIF_FLAG, extras.exif),
        (b"XMP ", XMP_FLAG, extras.metadata.xmp),
    ):
        if body is not None:
            flags |= flag
            last += name + struct.pack("<L", len(body)) + body + bytes(len(body) % 2)
    if not flags:
        shutil.copyfileobj(source, target)
        return
    end = source.seek(0, 2)
    source.seek(12)
    first = _first_chunk(source, extras.size, flags)
    length = 4 + len(first) + end - source.tell() + len(last)
    target.write(b"RIFF" + struct.pack("<L", length) + b"WEBP" + first)
    shutil.copyfileobj(source, target)
    target.write(last)


def _first_chunk(source: BinaryIO, size: tuple[int, int], flags: int) -> bytes:
    """The chunk VP8X with these flags: the one that follows in the source, or a new one."""
    if source.read(4) == b"VP8X":
        first = bytearray(b"VP8X" + source.read(14))
        first[8] |= flags
        return bytes(first)
    source.seek(-4, 1)  # no such chunk: neither transparency nor a profile
    height, width = size
    lengths = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<LL", 10, flags) + lengths
