"""What a JPEG XL picture declares in its first bytes (ISO/IEC 18181-1, annex D).

Its reader (pillow-jxl-plugin) decodes a file when it opens it, and tells none of this before.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

CODESTREAM_HEAD = b"\xff\x0a"
HEADER_BYTES = 32  # more than these fields can take
BIT_DEPTHS = (8, 10, 12)  # by selector; the last one gives the number itself
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
BITS_OF_SELECTOR = (9, 13, 18, 30)


class JxlHeader(NamedTuple):
    """What a picture declares.

    Attributes:
        width_px: width in the file, before it is turned.
        height_px: height in the file, before it is turned.
        orientation: from 1 to 8, as in EXIF; decoders apply it.
        is_animation: whether it has frames; False if a preview is in the way of that field.
        bits: per channel; None for floats, and not read if there is a preview or an animation.
    """

    width_px: int
    height_px: int
    orientation: int
    is_animation: bool
    bits: int | None


class _Bits:
    """Reads numbers of some bits, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self.bits = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value, self.bits = self.bits & ((1 << count) - 1), self.bits >> count
        return value

    def side_px(self, is_multiple_of_8: int) -> int:
        if is_multiple_of_8:
            return 8 * (self.take(5) + 1)
        return self.take(BITS_OF_SELECTOR[self.take(2)]) + 1

    def depth(self) -> int | None:
        if self.take(1):  # floats
            return None
        selector = self.take(2)
        return BIT_DEPTHS[selector] if selector < len(BIT_DEPTHS) else 1 + self.take(6)


def jxl_header(data: bytes) -> JxlHeader:
    """Read what a JPEG XL file declares.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: if the file has no header.
    """
    bits = _Bits(_codestream(data)[len(CODESTREAM_HEAD) :])
    width_px, height_px = _size(bits)
    if bits.take(1):  # everything is as usual
        return JxlHeader(width_px, height_px, orientation=1, is_animation=False, bits=8)
    if not bits.take(1):  # no extra fields
        return JxlHeader(width_px, height_px, 1, is_animation=False, bits=bits.depth())
    orientation = bits.take(3) + 1
    if bits.take(1):  # the size at which it is displayed
        _size(bits)
    has_preview = bits.take(1)
    is_animation = not has_preview and bool(bits.take(1))
    depth = None if has_preview or is_animation else bits.depth()
    return JxlHeader(width_px, height_px, orientation, is_animation, depth)


def _size(bits: _Bits) -> tuple[int, int]:
    """Width and height in pixels."""
    is_multiple_of_8 = bits.take(1)
    height_px = bits.side_px(is_multiple_of_8)
    ratio = bits.take(3)
    if ratio == 0:
        return bits.side_px(is_multiple_of_8), height_px
    across, down = RATIOS[ratio - 1]
    return height_px * across // down, height_px


def _codestream(data: bytes) -> bytes:
    """The start of the codestream of a file, with or without a container."""
    if data.startswith(CODESTREAM_HEAD):
        return data[:HEADER_BYTES]
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        start = at + 8
        if length == 1:  # the true length follows
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the number of the part
            return data[start : start + HEADER_BYTES]
        if length < 8:
            break
        at += length
    raise ValueError("the JPEG XL file holds no image")
