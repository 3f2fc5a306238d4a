"""Writes TIFF files of every kind for the tests: any bits, meaning, layout and byte order."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import imagecodecs
import numpy as np

COMPRESSIONS = {
    "none": (1, bytes),
    "lzw": (5, imagecodecs.lzw_encode),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "packbits": (32773, imagecodecs.packbits_encode),
    "lzma": (34925, imagecodecs.lzma_encode),
    "zstd": (50000, imagecodecs.zstd_encode),
}
FIELD_TYPES = {
    "bytes": (7, "s"),
    "text": (2, "s"),
    "short": (3, "H"),
    "long": (4, "L"),
    "offset": (16, "Q"),
}
Page = tuple[dict[int, tuple[str, Sequence[int] | bytes]], list[bytes]]


def tiff_of(samples: np.ndarray, photometric: int, *, order="<", big=False, **options) -> bytes:
    """A TIFF file of one page; see `page_of`."""
    return file_of([page_of(samples, photometric, order=order, **options)], order=order, big=big)


def page_of(
    samples: np.ndarray,
    photometric: int,
    *,
    bits: int,
    order: str = "<",
    planar: bool = False,
    tile_px: int | None = None,
    rows_per_strip: int = 1000,
    compression: str = "none",
    predictor: bool = False,
    lowest_bit_first: bool = False,
    fields: dict[int, tuple[str, Sequence[int] | bytes]] | None = None,
) -> Page:
    """A page: its fields without the places of its strips or tiles, and these.

    Args:
        samples: (H, W, S) whole numbers below 2^bits.
        photometric: what they mean.
        fields: more fields, by tag, as type and values; they replace others.
    """
    height, width, count = samples.shape
    number, compress = COMPRESSIONS[compression]
    page: dict[int, tuple[str, Sequence[int] | bytes]] = {
        256: ("long", [width]),
        257: ("long", [height]),
        258: ("short", [bits] * count),
        259: ("short", [number]),
        262: ("short", [photometric]),
        266: ("short", [2 if lowest_bit_first else 1]),
        277: ("short", [count]),
        284: ("short", [2 if planar else 1]),
        317: ("short", [2 if predictor else 1]),
    }
    if tile_px is None:
        page[278] = ("long", [rows_per_strip])
    else:
        page |= {322: ("long", [tile_px]), 323: ("long", [tile_px])}
    segments = []
    for plane in np.split(samples, count, axis=2) if planar else [samples]:
        for part in _parts(plane, tile_px, rows_per_strip):
            data = compress(_packed(part, bits, order, predictor))
            segments.append(imagecodecs.bitorder_encode(data) if lowest_bit_first else data)
    return page | (fields or {}), segments


def _parts(plane: np.ndarray, tile_px: int | None, rows_per_strip: int) -> list[np.ndarray]:
    height, width = plane.shape[:2]
    if tile_px is None:
        return [plane[y : y + rows_per_strip] for y in range(0, height, rows_per_strip)]
    padded = np.pad(plane, ((0, -height % tile_px), (0, -width % tile_px), (0, 0)))
    return [
        padded[y : y + tile_px, x : x + tile_px]
        for y in range(0, height, tile_px)
        for x in range(0, width, tile_px)
    ]


def _packed(part: np.ndarray, bits: int, order: str, predictor: bool) -> bytes:
    """The rows of a strip or tile, each padded to whole bytes."""
    if predictor:
        part = np.diff(part.astype(np.int64), axis=1, prepend=0) % 2**bits
    if bits in (8, 16):
        return part.astype(f"{order}u{bits // 8}").tobytes()
    rows = part.reshape(len(part), -1, 1).astype(np.uint16)
    digits = rows >> np.arange(bits - 1, -1, -1, dtype=np.uint16) & 1  # highest bit first
    return np.packbits(digits.reshape(len(part), -1).astype(np.uint8), axis=1).tobytes()


def file_of(pages: Sequence[Page], *, order: str = "<", big: bool = False) -> bytes:
    """A TIFF or BigTIFF file of some pages."""
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("L", "H", "HHL")
    inline = struct.calcsize(order + offset)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    data = bytearray(head + (struct.pack(order + "HH", 8, 0) if big else b"") + bytes(inline))
    pointer = len(data) - inline
    for fields, segments in pages:
        places = []
        for segment in segments:
            places.append(len(data))
            data += segment + bytes(len(segment) % 2)
        tags = (324, 325) if 322 in fields else (273, 279)
        kind = "offset" if big else "long"
        fields = {tags[0]: (kind, places), tags[1]: (kind, [*map(len, segments)]), **fields}
        table = struct.pack(order + count, len(fields))
        for tag in sorted(fields):
            name, values = fields[tag]
            number, letter = FIELD_TYPES[name]
            if isinstance(values, bytes):
                value = values
            else:
                value = struct.pack(f"{order}{len(values)}{letter}", *values)
            table += struct.pack(order + entry, tag, number, len(values))
            if len(value) > inline:
                value, place = struct.pack(order + offset, len(data)), value
                data += place + bytes(len(place) % 2)
            table += value.ljust(inline, b"\0")
        struct.pack_into(order + offset, data, pointer, len(data))
        data += table
        pointer = len(data)
        data += bytes(inline)
    return bytes(data)
