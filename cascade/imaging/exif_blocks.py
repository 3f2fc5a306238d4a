"""EXIF blocks in memory: read and written by Pillow, with every field in its own type.

An EXIF block is a small TIFF file without pixels, so the same reader serves the head of TIFF files.

Pillow's `Image.Exif` would be shorter, but it drops the types of the fields in the Exif and GPS
directories and guesses them from the values when it writes: a user comment changes from UNDEFINED
to BYTE, a signed rational becomes unsigned, and letters outside ASCII become question marks. The
class that `Image.Exif` is built on, `ImageFileDirectory_v2`, keeps the types. All that is left to
do here is to place the inner directories, which it too can only write with guessed types.
"""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import suppress
from itertools import accumulate
from typing import Any

from PIL.ExifTags import IFD
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory
from PIL.TiffTags import ASCII, LONG, LONG8

HEADER = b"Exif\0\0"  # precedes the block in JPEG files
TIFF_HEAD = b"II*\0\x08\0\0\0"  # little-endian; the main directory follows
BIG_TIFF_HEAD = b"II+\0\x08\0\0\0\x10" + bytes(7)
BIG_TIFF_VERSION = 43
MAIN = 0
HOLDER_OF: dict[int, int] = {IFD.Exif: MAIN, IFD.GPSInfo: MAIN, IFD.Interop: IFD.Exif}

Directories = dict[int, Directory]  # MAIN and, by the tag that points to them, those inside it


def read_directories(block: bytes, at: int | None = None) -> Directories:
    """Read the main directory of an EXIF block and the directories inside it.

    A damaged field is left out with the fields after it in its directory, and so is an inner
    directory without fields.

    Args:
        block: an EXIF block with or without the header `Exif`, or a whole TIFF or BigTIFF file.
        at: offset of the main directory in bytes; None for the first one.

    Returns:
        Little-endian directories without the fields that point from one to the next. Texts are
        bytes, as in the file. MAIN is always present; it is empty if the whole block is damaged.
    """
    block = block.removeprefix(HEADER)
    directories = {MAIN: _directory(block, at, None)}
    for tag, holder in HOLDER_OF.items():
        offset = directories[holder].get(tag) if holder in directories else None
        if offset is not None and (inner := _directory(block, offset, tag)):
            directories[tag] = inner
    for directory in directories.values():
        for tag in HOLDER_OF:
            directory.pop(tag, None)
    return directories


def texts_of(block: bytes, tag: int, at: int | None = None) -> list[bytes]:
    """All texts that the main directory holds under one tag; `read_directories` keeps the last.

    Args:
        block: an EXIF block with or without the header `Exif`, or a whole TIFF or BigTIFF file.
        tag: number of the tag.
        at: offset of the main directory in bytes; None for the first one.

    Returns:
        The texts without the zero at their end, in their order; of a damaged directory, those
        before the damage.
    """
    block = block.removeprefix(HEADER)
    order, is_big = "<" if block[:2] == b"II" else ">", BIG_TIFF_VERSION in block[2:4]
    number, offset = ("Q", "Q") if is_big else ("H", "L")
    texts: list[bytes] = []
    with suppress(struct.error, OverflowError):
        start = (
            struct.unpack_from(order + offset, block, 8 if is_big else 4)[0] if at is None else at
        )
        (entries,) = struct.unpack_from(order + number, block, start)
        start += struct.calcsize(f"<{number}")
        for _ in range(entries):
            entry_tag, entry_type, count, place = struct.unpack_from(
                f"{order}HH{offset}{offset}", block, start
            )
            start += struct.calcsize(f"<HH{offset}{offset}")
            if (entry_tag, entry_type) == (tag, ASCII):
                width = struct.calcsize(f"<{offset}")
                place = start - width if count <= width else place  # short ones take its place
                texts.append(block[place : place + count].removesuffix(b"\0"))
    return texts


def write_directories(
    directories: Directories, at: int = len(TIFF_HEAD), *, is_big: bool = False
) -> bytes:
    """Write the main directory, followed by those inside it that have fields.

    Args:
        directories: in the form that `read_directories` returns.
        at: offset of the main directory from the start of the block or file, in bytes; even.
        is_big: whether it is for a BigTIFF file, whose offsets have 64 bits.
    """
    present = [MAIN]
    for tag, holder in HOLDER_OF.items():
        if directories.get(tag) and holder in present:
            present.append(tag)
    directories = {tag: _copy(directories[tag], is_big=is_big) for tag in present}
    for tag in present[1:]:  # before the offsets are known: these fields count in the lengths
        _point(directories[HOLDER_OF[tag]], tag, 0, is_big=is_big)
    lengths = [len(directories[tag].tobytes()) for tag in present]
    offsets = dict(zip(present, accumulate(lengths, initial=at), strict=False))
    for tag in present[1:]:
        _point(directories[HOLDER_OF[tag]], tag, offsets[tag], is_big=is_big)
    return b"".join(directories[tag].tobytes(offsets[tag]) for tag in present)


def write_block(directories: Directories) -> bytes:
    """Write an EXIF block without the header `Exif`."""
    return TIFF_HEAD + write_directories(directories)


def set_field(directory: Directory, tag: int, field_type: int, value: int | bytes) -> None:
    """Set a field together with its type, one of `PIL.TiffTags`."""
    directory.tagtype[tag] = field_type
    directory[tag] = value


def _point(holder: Directory, tag: int, offset: int, *, is_big: bool) -> None:
    holder.tagtype[tag] = LONG8 if is_big else LONG
    holder[tag] = offset


def _directory(block: bytes, offset: Any, tag: int | None) -> Directory:
    """Read one directory; an empty one if it is damaged.

    Args:
        block: without the header `Exif`.
        offset: from the start of the block; None for the one whose offset is in the head.
        tag: tag number of the field that points to the directory; None for the main one.
    """
    file, is_big = io.BytesIO(block), BIG_TIFF_VERSION in block[2:4]
    try:
        # Pillow takes a BigTIFF head for one only if it is little-endian
        head = b"II+\0" + block[4:16] if is_big else block[:8]
        directory = Directory(head, prefix=block[:2], group=tag)
        file.seek(directory.next if offset is None else offset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about every damaged field
            directory.load(file)
            return _copy(directory)
    except Exception:  # Pillow raises many kinds on damaged blocks
        return Directory(group=tag)


def _copy(directory: Directory, *, is_big: bool = False) -> Directory:
    """Copy a directory of any byte order into a little-endian one."""
    copy = Directory(BIG_TIFF_HEAD if is_big else TIFF_HEAD, group=directory.group)
    for tag, value in directory.items():
        copy.tagtype[tag] = directory.tagtype[tag]
        copy[tag] = tuple(map(_stored, value)) if isinstance(value, tuple) else _stored(value)
    return copy


def _stored(value: Any) -> Any:
    """Undo Pillow's decoding of texts: it reads them as Latin-1 but would write them as ASCII."""
    return value.encode("latin-1") if isinstance(value, str) else value
