"""Joins WebP files of one size into an animation (WebP Container Specification, "Animation").

Every frame is a whole picture that replaces the one before, of the same quality as a single
picture. The encoder for animations would merge equal frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cascade.errors import OutputError
from cascade.imaging.extras import Extras
from cascade.imaging.webp_chunks import EXIF_FLAG, XMP_FLAG

ANIMATION_FLAG, ALPHA_FLAG, PROFILE_FLAG = 0x02, 0x10, 0x20
REPLACES = 0x02  # flag of a frame: its pixels are not blended with those before
MAX_DURATION_MS, MAX_PLAYS = 2**24 - 1, 2**16 - 1
MAX_BYTES = 2**32 - 2
PIXEL_CHUNKS = (b"ALPH", b"VP8 ", b"VP8L")


def join_webps(
    files: Sequence[Path],
    durations_ms: Sequence[float],
    plays: int,
    target: BinaryIO,
    extras: Extras,
) -> None:
    """Join WebP files that differ in nothing but their pixels.

    Args:
        files: the frames, each with the profile of all, if there is one.
        durations_ms: for which each frame is shown.
        plays: how often the animation is played; 0 for no end.
        target: an empty file.
        extras: metadata to add.

    Raises:
        OutputError: if the animation is too large for the format.
    """
    target.write(b"RIFF" + bytes(4) + b"WEBP" + _chunk(b"VP8X", bytes(10)))
    flags, end_ms = ANIMATION_FLAG, 0.0
    for index, (file, duration_ms) in enumerate(zip(files, durations_ms, strict=True)):
        chunks = dict(_chunks(file))
        if index == 0:
            if b"ICCP" in chunks:
                flags |= PROFILE_FLAG
                target.write(_chunk(b"ICCP", chunks[b"ICCP"]))
            background = bytes(4)  # transparent
            control = background + struct.pack("<H", min(plays, MAX_PLAYS))
            target.write(_chunk(b"ANIM", control))
        flags |= ALPHA_FLAG if chunks.keys() & {b"ALPH", b"VP8L"} else 0
        start_ms, end_ms = end_ms, end_ms + duration_ms  # so that rounding does not add up
        frame = _frame_head(extras.size, round(end_ms) - round(start_ms))
        frame += b"".join(_chunk(name, chunks[name]) for name in PIXEL_CHUNKS if name in chunks)
        target.write(_chunk(b"ANMF", frame))
    for name, flag, body in (
        (b"EXIF", EXIF_FLAG, extras.exif),
        (b"XMP ", XMP_FLAG, extras.metadata.xmp),
    ):
        if body is not None:
            flags |= flag
            target.write(_chunk(name, body))
    _complete_head(target, flags, extras.size)


def _complete_head(target: BinaryIO, flags: int, size: tuple[int, int]) -> None:
    """Fill in the length of the file, and what its chunks hold."""
    length = target.tell()
    if length > MAX_BYTES:
        raise OutputError("the animation has more than the 4 GiB that WebP can hold; write PNG.")
    target.seek(4)
    target.write(struct.pack("<L", length - 8))
    target.seek(12)
    target.write(_chunk(b"VP8X", struct.pack("<L", flags) + _sides(size)))


def _frame_head(size: tuple[int, int], duration_ms: int) -> bytes:
    """The start of a frame that covers the whole picture."""
    duration = min(duration_ms, MAX_DURATION_MS).to_bytes(3, "little")
    return bytes(6) + _sides(size) + duration + bytes([REPLACES])


def _sides(size: tuple[int, int]) -> bytes:
    height, width = size
    return (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _chunks(file: Path) -> Iterator[tuple[bytes, bytes]]:
    data = file.read_bytes()
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sL", data, at)
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<L", len(body)) + body + bytes(len(body) % 2)
