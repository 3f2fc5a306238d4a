"""Joins PNG files of one size and kind into an animated PNG (PNG, third edition, section 11.3.5).

Every frame is a whole picture that replaces the one before, so no frame is merged with another and
all of them keep 16 bits. Pillow would join equal frames and keep all pixels in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from cascade.imaging.extras import Extras
from cascade.imaging.png_chunks import HEAD, chunk, png_extras

IHDR_BYTES = 25
MAX_16_BITS = 2**16 - 1


def join_pngs(
    files: Sequence[Path],
    durations_ms: Sequence[float],
    plays: int,
    target: BinaryIO,
    extras: Extras,
) -> None:
    """Join PNG files that differ in nothing but their pixels.

    Args:
        files: the frames, without interlacing or palettes.
        durations_ms: for which each frame is shown.
        plays: how often the animation is played; 0 for no end.
        target: an empty file.
        extras: profile and metadata to add.
    """
    number = 0  # of the next chunk fcTL or fdAT
    for index, (file, duration_ms) in enumerate(zip(files, durations_ms, strict=True)):
        with file.open("rb") as source:
            header = source.read(len(HEAD) + IHDR_BYTES)
            if index == 0:
                control = chunk(b"acTL", struct.pack(">LL", len(files), plays))
                target.write(header + png_extras(extras) + control)
            size = struct.unpack_from(">LL", header, len(HEAD) + 8)
            target.write(chunk(b"fcTL", _frame_control(number, size, duration_ms)))
            number += 1
            for body in _pixel_data(source):
                if index == 0:
                    target.write(chunk(b"IDAT", body))
                else:
                    target.write(chunk(b"fdAT", struct.pack(">L", number) + body))
                    number += 1
    target.write(chunk(b"IEND", b""))


def _frame_control(number: int, size: tuple[int, int], duration_ms: float) -> bytes:
    """The body of a chunk fcTL: a whole frame that replaces the one before."""
    delay = Fraction(duration_ms / 1000).limit_denominator(MAX_16_BITS)
    if delay.numerator > MAX_16_BITS:  # more than a second for each unit that would be left
        delay = min(Fraction(round(delay)), Fraction(MAX_16_BITS))
    position, no_disposal, no_blending = (0, 0), 0, 0
    delays = delay.numerator, delay.denominator
    return struct.pack(">LLLLLHHBB", number, *size, *position, *delays, no_disposal, no_blending)


def _pixel_data(source: BinaryIO) -> Iterator[bytes]:
    """The bodies of the chunks IDAT of an open PNG, from the first chunk after its header on."""
    while head := source.read(8):
        length, name = struct.unpack(">L4s", head)
        if name == b"IDAT":
            yield source.read(length)
            source.seek(4, 1)
        else:
            source.seek(length + 4, 1)
