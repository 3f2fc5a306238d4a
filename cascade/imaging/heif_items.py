"""EXIF, XMP, colour space and bit depth of AVIF and HEIC files (ISO/IEC 14496-12 and 23008-12).

Pillow rewrites the EXIF of AVIF when it applies the orientation, and changes letters outside ASCII.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cascade.imaging.exif_blocks import HEADER
from cascade.imaging.metadata import Metadata

MAX_ITEM_BYTES = 2**26
XMP_TYPE = b"application/rdf+xml"
UNSTATED = 2  # of the numbers of ITU-T H.273
SRGB_PRIMARIES = {1, UNSTATED}
SRGB_TRANSFERS = {1, 6, 13, 14, 15, UNSTATED}  # those of video but HDR are shown as that of sRGB


class DamagedBoxError(ValueError):
    """A box ends before its fields do."""


@dataclass
class _Reader:
    """Reads whole numbers and texts from a box, one after the other."""

    data: bytes
    at: int = 0

    def number(self, size_bytes: int) -> int:
        body = self.data[self.at : self.at + size_bytes]
        if len(body) < size_bytes:
            raise DamagedBoxError
        self.at += size_bytes
        return int.from_bytes(body, "big")

    def text(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise DamagedBoxError
        text, self.at = self.data[self.at : end], end + 1
        return text


def is_heif(data: bytes) -> bool:
    """Whether a file begins as AVIF and HEIC files do."""
    return data[4:8] == b"ftyp"


def boxes(data: bytes, at: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of the boxes in some bytes; ends at the first damaged one."""
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">L4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            (length,), head = struct.unpack_from(">Q", data, at + 8), 16
        length = length or len(data) - at
        if length < head or at + length > len(data):
            return
        yield name, data[at + head : at + length]
        at += length


def read_heif(data: bytes) -> Metadata:
    """Read EXIF, XMP and colour space of an AVIF or HEIC file; damaged items are left out.

    Other colours than those of sRGB become a chunk cICP of PNG, which holds the same numbers.
    """
    top = dict(reversed(list(boxes(data))))
    inner = dict(reversed(list(boxes(top.get(b"meta", b""), 4))))
    chunks = _colour_chunks(inner)
    try:
        kinds = _kinds(inner.get(b"iinf", b""))
        places = _places(inner.get(b"iloc", b""))
    except DamagedBoxError:
        return Metadata(colour_chunks=chunks)
    sources = {0: data, 1: inner.get(b"idat", b"")}
    items: dict[bytes, bytes] = {}
    for item, kind in kinds.items():
        method, extents = places.get(item, (2, []))
        source = sources.get(method, b"")
        body = b"".join(source[at : at + length] for at, length in extents)
        if len(body) == sum(length for _, length in extents) <= MAX_ITEM_BYTES:
            items.setdefault(kind, body)
    return Metadata(
        exif=_exif(items.get(b"Exif", b"")),
        xmp=items.get(XMP_TYPE) or None,
        colour_chunks=chunks,
    )


def bits_of_heif(data: bytes) -> int:
    """The largest number of bits per channel that an AVIF or HEIC file states; 8 if none."""
    body = data
    for name, start in ((b"meta", 0), (b"iprp", 4), (b"ipco", 0)):
        body = dict(boxes(body, start)).get(name, b"")
    depths = [max(box[5:], default=0) for name, box in boxes(body) if name == b"pixi"]
    return max(depths, default=0) or 8


def _colour_chunks(inner: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The chunk cICP for the colours of the main picture; none for sRGB or with a profile."""
    try:
        colours = [body for name, body in _main_properties(inner) if name == b"colr"]
    except DamagedBoxError:
        return ()
    if [body[:4] for body in colours] != [b"nclx"] or len(colours[0]) < 8:  # a profile decides
        return ()
    primaries, transfer = struct.unpack_from(">HH", colours[0], 4)
    is_srgb = primaries in SRGB_PRIMARIES and transfer in SRGB_TRANSFERS
    if is_srgb or max(primaries, transfer) > 255:
        return ()
    return ((b"cICP", bytes([primaries, transfer, 0, 1])),)  # RGB of the whole range


def _main_properties(inner: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Name and body of the properties of the main picture."""
    head, body = inner.get(b"pitm", b""), dict(boxes(inner.get(b"iprp", b"")))
    main = _Reader(head, 4).number(4 if head[:1] == b"\1" else 2)
    properties, links = list(boxes(body.get(b"ipco", b""))), body.get(b"ipma", b"")
    reader, link_bytes = _Reader(links, 4), 2 if links[3:4] == b"\1" else 1
    for _ in range(reader.number(4)):
        item = reader.number(2 if links[0] == 0 else 4)
        numbers = [reader.number(link_bytes) for _ in range(reader.number(1))]
        if item == main:
            places = [number & (1 << 8 * link_bytes - 1) - 1 for number in numbers]
            return [properties[place - 1] for place in places if 0 < place <= len(properties)]
    return []


def _exif(item: bytes) -> bytes | None:
    """The EXIF block in an item, which begins with the number of bytes before the block."""
    if len(item) < 12:
        return None
    (skipped,) = struct.unpack_from(">L", item)
    return item[4 + skipped :].removeprefix(HEADER) or None


def _kinds(body: bytes) -> dict[int, bytes]:
    """`Exif`, or the content type of XMP, of the items that hold them, by their numbers."""
    kinds = {}
    count_bytes = 2 if body[:1] == b"\0" else 4
    for name, entry in boxes(body, 4 + count_bytes):
        if name != b"infe" or entry[:1] not in (b"\2", b"\3"):
            continue
        reader = _Reader(entry, 4)
        item = reader.number(2 if entry[0] == 2 else 4)
        reader.at += 2
        kind = reader.data[reader.at : reader.at + 4]
        reader.at += 4
        reader.text()
        if kind == b"Exif":
            kinds[item] = kind
        elif kind == b"mime" and reader.text() == XMP_TYPE:
            kinds[item] = XMP_TYPE
    return kinds


def _places(body: bytes) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """For each item, how its offsets are meant (0: in the file, 1: in `idat`), and its extents."""
    if not body:
        return {}
    version, reader = body[0], _Reader(body, 4)
    sizes = reader.number(2)
    offset_bytes, length_bytes = sizes >> 12, sizes >> 8 & 15
    base_bytes, index_bytes = sizes >> 4 & 15, sizes & 15 if version else 0
    number_bytes = 2 if version < 2 else 4
    places = {}
    for _ in range(reader.number(number_bytes)):
        item = reader.number(number_bytes)
        method = reader.number(2) & 15 if version else 0
        reader.at += 2  # of the data reference
        base = reader.number(base_bytes)
        extents = []
        for _ in range(reader.number(2)):
            reader.at += index_bytes
            offset = reader.number(offset_bytes)
            extents.append((base + offset, reader.number(length_bytes)))
        places[item] = (method, extents)
    return places
