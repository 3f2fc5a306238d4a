"""Puts TIFF files that libvips wrote together: one page after another, each with its metadata.

A page is copied as it is. Only its directory is written anew, behind it, with the fields of libvips
and those of its metadata; what these point to has moved by as many bytes as the page.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cascade.imaging.exif_blocks import MAIN, read_directories, set_field, write_directories
from cascade.imaging.extras import Extras
from cascade.imaging.resolution import RESOLUTION_TAGS
from cascade.imaging.tiff_fields import metadata_fields

OFFSET_TAGS = (273, 324)  # of strips and of tiles
LETTER_OF_TYPE = {1: "B", 2: "B", 3: "H", 4: "L", 5: "LL", 6: "b", 7: "B", 8: "h", 9: "l"}
LETTER_OF_TYPE |= {10: "ll", 11: "f", 12: "d", 13: "L", 16: "Q", 17: "q", 18: "Q"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a little-endian TIFF file stores its directories.

    Attributes:
        head: start of a file without a directory; it ends with the offset of the first one.
        count: letter for `struct` of the number of entries of a directory.
        offset: letter of an offset, and of the number of values of a field.
        offset_type: TIFF's type of an offset.
    """

    head: bytes
    count: str
    offset: str
    offset_type: int

    @property
    def offset_bytes(self) -> int:
        """Length of an offset."""
        return struct.calcsize(f"<{self.offset}")

    @property
    def entry_bytes(self) -> int:
        """Length of an entry: tag, type, number of values, and the values or their offset."""
        return 4 + 2 * self.offset_bytes


CLASSIC = Layout(head=b"II*\0" + bytes(4), count="H", offset="L", offset_type=4)
BIG = Layout(head=b"II+\0\x08\0\0\0" + bytes(8), count="Q", offset="Q", offset_type=16)


def add_to_tiff(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a TIFF of one page, and add metadata."""
    target.write(CLASSIC.head)
    _append_page(source, target, extras, CLASSIC, link_at=4)


def join_tiffs(
    files: Sequence[Path], target: BinaryIO, extras: Sequence[Extras], *, is_big: bool
) -> None:
    """Join TIFF files of one page each.

    Args:
        files: the pages, all of them BigTIFF if `is_big`.
        target: an empty file.
        extras: metadata to add to each page.
        is_big: whether to write BigTIFF, which may have more than 4 GiB.
    """
    layout = BIG if is_big else CLASSIC
    target.write(layout.head)
    link_at = len(layout.head) - layout.offset_bytes
    for file, extra in zip(files, extras, strict=True):
        with file.open("rb") as source:
            link_at = _append_page(source, target, extra, layout, link_at)


def _append_page(
    source: BinaryIO, target: BinaryIO, extras: Extras, layout: Layout, link_at: int
) -> int:
    """Append a page to a file; returns where the offset of the page after it belongs.

    Args:
        source: a file of one page.
        target: positioned at its end.
        extras: metadata to add.
        layout: byte order and offset size of both files.
        link_at: where in the target the offset of this page belongs.
    """
    _pad(target)
    shift = target.tell() - len(layout.head)
    entries = _moved_entries(source, shift, layout)
    for tag in RESOLUTION_TAGS:  # libvips always writes one
        entries.pop(tag, None)
    source.seek(len(layout.head))
    shutil.copyfileobj(source, target)
    directories = read_directories(extras.exif or b"")
    for tag, (kind, value) in metadata_fields(extras.metadata).items():
        set_field(directories[MAIN], tag, kind, value)
    if any(directories.values()):
        _pad(target)
        is_big = layout is BIG
        block = write_directories(directories, at=target.tell(), is_big=is_big)
        target.write(block)
        entries |= _entries_in(block, layout)
    return _write_directory(target, entries, layout, link_at)


def _write_directory(
    target: BinaryIO, entries: dict[int, bytes], layout: Layout, link_at: int
) -> int:
    """Write a directory and link it; returns where the offset of the next one belongs."""
    for tag in OFFSET_TAGS:
        if tag in entries:
            entries[tag] = _outside(entries[tag], target, layout)
    _pad(target)
    start = target.tell()
    target.write(struct.pack(f"<{layout.count}", len(entries)))
    target.write(b"".join(entries[tag] for tag in sorted(entries)))
    next_at = target.tell()
    target.write(bytes(layout.offset_bytes))
    target.seek(link_at)
    target.write(struct.pack(f"<{layout.offset}", start))
    target.seek(0, 2)
    return next_at


def _outside(entry: bytes, target: BinaryIO, layout: Layout) -> bytes:
    """Write values that do not fit into an entry into the file, and point to them."""
    head, values = entry[: 4 + layout.offset_bytes], entry[4 + layout.offset_bytes :]
    if len(values) > layout.offset_bytes:
        _pad(target)
        place = target.tell()
        target.write(values)
        values = struct.pack(f"<{layout.offset}", place)
    return head + values


def _moved_entries(source: BinaryIO, shift: int, layout: Layout) -> dict[int, bytes]:
    """The entries of the directory of a file, by their tags, for a file in which all has moved.

    The entries of the offsets of strips and tiles contain all of these, even if they do not fit.
    """
    source.seek(len(layout.head) - layout.offset_bytes)
    (start,) = struct.unpack(f"<{layout.offset}", source.read(layout.offset_bytes))
    source.seek(start)
    table = source.read(struct.calcsize(f"<{layout.count}"))
    (count,) = struct.unpack(f"<{layout.count}", table)
    entries = _entries_in(table + source.read(count * layout.entry_bytes), layout)
    return {tag: _moved(entry, source, shift, layout) for tag, entry in entries.items()}


def _moved(entry: bytes, source: BinaryIO, shift: int, layout: Layout) -> bytes:
    tag, kind, count = struct.unpack_from(f"<HH{layout.offset}", entry)
    place = 4 + layout.offset_bytes
    letters = f"<{count * LETTER_OF_TYPE[kind]}"
    is_outside = struct.calcsize(letters) > layout.offset_bytes
    (start,) = struct.unpack_from(f"<{layout.offset}", entry, place)
    if tag in OFFSET_TAGS:
        source.seek(start)
        data = source.read(struct.calcsize(letters)) if is_outside else entry[place:]
        offsets = [offset + shift for offset in struct.unpack_from(letters, data)]
        head = struct.pack(f"<HH{layout.offset}", tag, layout.offset_type, count)
        return head + struct.pack(f"<{count}{layout.offset}", *offsets)
    if is_outside:
        return entry[:place] + struct.pack(f"<{layout.offset}", start + shift)
    return entry


def _entries_in(table: bytes, layout: Layout) -> dict[int, bytes]:
    """Split a directory at the start of some bytes into its entries, by their tags."""
    (count,) = struct.unpack_from(f"<{layout.count}", table)
    first = struct.calcsize(f"<{layout.count}")
    starts = range(first, first + count * layout.entry_bytes, layout.entry_bytes)
    entries = [table[start : start + layout.entry_bytes] for start in starts]
    return {struct.unpack_from("<H", entry)[0]: entry for entry in entries}


def _pad(file: BinaryIO) -> None:
    """Bring the end of a file to an even offset, where TIFF wants its parts."""
    file.write(bytes(file.tell() % 2))
