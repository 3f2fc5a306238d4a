"""The size of a JPEG XL picture, read from its first bytes (ISO/IEC 18181-1, annex D.2)."""

from __future__ import annotations

import struct

CODESTREAM_HEAD = b"\xff\x0a"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height
BITS_OF_SELECTOR = (9, 13, 18, 30)


def jxl_size(data: bytes) -> tuple[int, int]:
    """Read the size that a JPEG XL file declares.

    Args:
        data: the file's bytes.

    Returns:
        Width and height in pixels, as stored.

    Raises:
        ValueError: if there is no size.
    """
    stream = _codestream(data)
    if len(stream) < 12:
        raise ValueError("the JPEG XL header is cut off")
    bits = int.from_bytes(stream[2:12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side_px(is_multiple_of_8: int) -> int:
        if is_multiple_of_8:
            return 8 * (take(5) + 1)
        return take(BITS_OF_SELECTOR[take(2)]) + 1

    is_multiple_of_8 = take(1)
    height_px = side_px(is_multiple_of_8)
    ratio = take(3)
    if ratio == 0:
        return side_px(is_multiple_of_8), height_px
    across, down = RATIOS[ratio - 1]
    return height_px * across // down, height_px


def _codestream(data: bytes) -> bytes:
    """The start of the codestream of a file, with or without a container."""
    if data.startswith(CODESTREAM_HEAD):
        return data[:16]
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        start = at + 8
        if length == 1:  # the true length follows
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the number of the part
            return data[start : start + 16]
        if length < 8:
            break
        at += length
    raise ValueError("the JPEG XL file holds no picture")
