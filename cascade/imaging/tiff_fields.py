"""Directories of tagged fields, of which EXIF blocks and the heads of TIFF files are made.

An EXIF block is a small TIFF file without pixels, so one reader and one writer serve both. Values
are kept in their own types, byte for byte, so that fields that nobody here knows survive too.
"""

from __future__ import annotations

import mmap
import struct
from contextlib import suppress
from typing import NamedTuple

import numpy as np

EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY = 0x8769, 0x8825, 0xA005
SUBDIRECTORIES = (EXIF_DIRECTORY, GPS_DIRECTORY, INTEROPERABILITY_DIRECTORY)
ASCII, SHORT, LONG, RATIONAL = 2, 3, 4, 5
# type: (bytes of one value, bytes that a change of byte order turns round)
TYPES = {1: (1, 1), 2: (1, 1), 3: (2, 2), 4: (4, 4), 5: (8, 4), 6: (1, 1), 7: (1, 1), 8: (2, 2)}
TYPES |= {9: (4, 4), 10: (8, 4), 11: (4, 4), 12: (8, 8), 13: (4, 4)}
TYPES |= {16: (8, 8), 17: (8, 8), 18: (8, 8)}  # of BigTIFF
ORDERS = {b"II": "<", b"MM": ">"}


class Field(NamedTuple):
    """One field: its TIFF type, and its bytes in little-endian order or a directory."""

    type: int
    value: bytes | dict[int, Field]


Directory = dict[int, Field]


class DamagedFieldsError(ValueError):
    """The bytes are not a readable directory."""


def read_fields(data: bytes | mmap.mmap) -> Directory:
    """Read the first directory of a TIFF structure, with its Exif and GPS directories.

    Args:
        data: an EXIF block without the header `Exif`, a TIFF or a BigTIFF file.

    Returns:
        Fields by their tag; those of unknown types are left out, and so are damaged directories
        inside.

    Raises:
        DamagedFieldsError: if that is not what it is, or it is damaged.
    """
    try:
        return _Reader(data).first_directory()
    except (struct.error, KeyError, OverflowError) as error:
        raise DamagedFieldsError("not a readable directory of fields") from error


def write_fields(directory: Directory, at: int) -> bytes:
    """Write a directory and those inside it in little-endian order.

    Args:
        directory: the fields.
        at: offset of the result from the start of the file or block; even.

    Returns:
        The table of fields, then what does not fit into it.
    """
    tail_at = at + 2 + 12 * len(directory) + 4
    table, tail = struct.pack("<H", len(directory)), b""
    for tag, (kind, value) in sorted(directory.items()):
        here = tail_at + len(tail)
        if isinstance(value, dict):
            count, stored = 1, write_fields(value, here)
        else:
            count, stored = len(value) // TYPES[kind][0], value
        inside = not isinstance(value, dict) and len(stored) <= 4
        table += struct.pack("<HHL", tag, kind, count)
        table += stored.ljust(4, b"\0") if inside else struct.pack("<L", here)
        tail += b"" if inside else stored + bytes(len(stored) % 2)
    return table + bytes(4) + tail


class _Reader:
    """Of one TIFF structure; reads no more bytes of values than there are."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.order = ORDERS[data[:2]]
        (magic,) = self._unpack("H", 2)
        self.big = {42: False, 43: True}[magic]
        self.budget = len(data)

    def first_directory(self) -> Directory:
        (start,) = self._unpack("Q", 8) if self.big else self._unpack("L", 4)
        return self._directory(start, depth=0)

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, at)

    def _directory(self, start: int, depth: int) -> Directory:
        (count,) = self._unpack("Q" if self.big else "H", start)
        first, step = (start + 8, 20) if self.big else (start + 2, 12)
        fields: Directory = {}
        for at in range(first, first + step * count, step):
            tag, kind, values = self._unpack("HHQ" if self.big else "HHL", at)
            if tag in SUBDIRECTORIES and depth < 2:
                (below,) = self._unpack(
                    "Q" if self.big else "L", at + step - (8 if self.big else 4)
                )
                with suppress(struct.error, DamagedFieldsError):
                    fields[tag] = Field(LONG, self._directory(below, depth + 1))
            elif kind in TYPES:
                fields[tag] = Field(kind, self._value(kind, values, at))
        return fields

    def _value(self, kind: int, values: int, at: int) -> bytes:
        size, unit = TYPES[kind]
        length = values * size
        start, room = (at + 12, 8) if self.big else (at + 8, 4)
        if length > room:
            (start,) = self._unpack("Q" if self.big else "L", start)
        stored = self.data[start : start + length]
        if length > self.budget or len(stored) < length:
            raise DamagedFieldsError("a field is longer than the file")
        self.budget -= length
        if self.order == ">":
            return np.frombuffer(stored, f">u{unit}").astype(f"<u{unit}").tobytes()
        return stored
