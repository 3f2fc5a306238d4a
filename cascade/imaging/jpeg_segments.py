"""The metadata of JPEG files: read from their segments, and added to files that libvips wrote."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from cascade.imaging.exif_blocks import HEADER
from cascade.imaging.extended_xmp import extension_guid, merged, split
from cascade.imaging.extras import Extras
from cascade.imaging.metadata import COMMENT, Loss, Metadata, Text
from cascade.imaging.photoshop_resources import IPTC, metadata_of_resources, write_resources
from cascade.imaging.xmp_packets import PacketError

HEAD = b"\xff\xd8"
APP0, APP1, APP2, APP11, APP13, COM, SOS, EOI = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xFE, 0xDA, 0xD9
FRAMES = tuple(each for each in range(0xC0, 0xD0) if each not in (0xC4, 0xC8, 0xCC))
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
MAX_SEGMENT_BYTES = 65533
MAX_EXIF_BYTES = MAX_SEGMENT_BYTES - len(HEADER)
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_HEADER = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_HEADER = b"Photoshop 3.0\0"
MOTION = re.compile(rb"""(?:MotionPhoto|MicroVideo)(?:=["']|>)1""")  # of phones
GUID_BYTES = 32
MAX_XMP_BYTES = 65502
MAX_EXTENSION_PART_BYTES = 65400
MAX_EXTENSION_BYTES = 2**26


# ---- reading ------------------------------------------------------------------------------------


def read_jpeg(data: bytes) -> Metadata:
    """Read the metadata of a JPEG file; damaged segments are left out."""
    exif, xmp, resources, texts, losses = b"", None, b"", [], []
    parts: dict[bytes, list[tuple[int, int, bytes]]] = {}  # of extensions, by their digest
    for marker, body in _segments(data):
        if marker == APP1 and body.startswith(HEADER):
            exif += body[len(HEADER) :]
        elif marker == APP1 and body.startswith(XMP_HEADER):
            xmp = xmp or body[len(XMP_HEADER) :]
        elif marker == APP1 and body.startswith(EXTENSION_HEADER):
            at = len(EXTENSION_HEADER)
            guid, rest = body[at : at + GUID_BYTES], body[at + GUID_BYTES :]
            if len(rest) >= 8:
                parts.setdefault(guid, []).append((*struct.unpack_from(">LL", rest), rest[8:]))
        elif marker == APP13 and body.startswith(PHOTOSHOP_HEADER):
            resources += body[len(PHOTOSHOP_HEADER) :]
        elif marker == APP11 and body.startswith(b"JP"):
            losses.append(Loss("content credentials", "they are signed for the old pixels"))
        elif marker == APP2 and body.startswith(b"MPF\0"):
            losses.append(Loss("further images of a file", "only its main image is read"))
        elif marker == COM:
            texts.append(comment(body))
    if xmp is not None:
        if MOTION.search(xmp):
            losses.append(Loss("video", "only the still image of a motion photo is read"))
        xmp, lost = _whole_xmp(xmp, parts)
        losses += lost
    metadata = metadata_of_resources(resources)
    return replace(
        metadata,
        exif=exif or None,
        xmp=xmp,
        texts=tuple(texts),
        losses=(*metadata.losses, *dict.fromkeys(losses)),
    )


def obstacle_in_jpeg(data: bytes) -> str:
    """Why decoders of usual JPEG cannot read a file: "JPEG of 12 bits", "JPEG-LS"…; else empty."""
    for marker, body in _segments(data):
        if marker == 0xF7:
            return "JPEG-LS"
        if marker in FRAMES and len(body) >= 6:
            if body[0] != 8:
                return f"JPEG of {body[0]} bits"
            return "" if body[5] in (1, 3, 4) else f"JPEG of {body[5]} channels"
    return ""


def comment(body: bytes) -> Text:
    """A comment of JPEG or GIF, whose encoding is not stated: UTF-8, else Latin-1."""
    body = body.rstrip(b"\0")
    try:
        return Text(keyword=COMMENT, text=body.decode("utf-8"))
    except UnicodeDecodeError:
        return Text(keyword=COMMENT, text=body.decode("latin-1"))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of the segments before the pixels; ends at the first damaged one."""
    at = len(HEAD)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in WITHOUT_LENGTH:
            at += 2
        elif marker in (SOS, EOI):
            return
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            body = data[at + 4 : at + 2 + length]
            if length < 2 or len(body) < length - 2:
                return
            yield marker, body
            at += 2 + length


def _whole_xmp(
    xmp: bytes, parts: dict[bytes, list[tuple[int, int, bytes]]]
) -> tuple[bytes, list[Loss]]:
    """Join a packet and its extension; without it if that is missing or damaged."""
    lost = [Loss("extended XMP", "it is incomplete or damaged")]
    try:
        guid = extension_guid(xmp)
        if guid is None:
            return xmp, lost if parts else []
        extension = _joined(parts.get(guid.encode(), []))
        return (xmp, lost) if extension is None else (merged(xmp, extension), [])
    except PacketError:
        return xmp, lost


def _joined(parts: list[tuple[int, int, bytes]]) -> bytes | None:
    """Join the parts of an extension, each its whole length, its offset and bytes."""
    joined = b""
    for length, offset, body in sorted(parts):
        if offset != len(joined) or length > MAX_EXTENSION_BYTES:
            return None
        joined += body
    return joined if parts and len(joined) == parts[0][0] else None


# ---- writing ------------------------------------------------------------------------------------


def add_to_jpeg(source: BinaryIO, target: BinaryIO, extras: Extras) -> None:
    """Copy a JPEG; segments with resolution, EXIF, XMP, IPTC and comments come first."""
    target.write(source.read(2))
    unit, density = 0, (1, 1)  # square pixels of unknown size
    if extras.dpi is not None:
        unit, density = 1, tuple(max(1, round(value)) for value in extras.dpi)
    jfif = b"JFIF\0\1\1" + struct.pack(">BHHBB", unit, *density, 0, 0)
    target.write(_segment(APP0, jfif))
    if extras.exif is not None:
        target.write(_segment(APP1, HEADER + extras.exif))
    for marker, body in _metadata_segments(extras.metadata):
        target.write(_segment(marker, body))
    head = source.read(4)
    if head.startswith(bytes([0xFF, APP0])):  # the one of libvips is left out
        source.seek(struct.unpack(">H", head[2:])[0] - 2, 1)
    else:
        target.write(head)
    shutil.copyfileobj(source, target)


def holds_xmp(xmp: bytes) -> bool:
    """Whether JPEG can hold an XMP packet."""
    try:
        split(xmp, MAX_XMP_BYTES)
    except PacketError:
        return False
    return True


def _metadata_segments(metadata: Metadata) -> Iterator[tuple[int, bytes]]:
    if metadata.xmp is not None and holds_xmp(metadata.xmp):
        xmp, extension = split(metadata.xmp, MAX_XMP_BYTES)
        yield APP1, XMP_HEADER + xmp
        if extension is not None:
            guid = extension_guid(xmp) or ""
            for at, part in _parts(extension, MAX_EXTENSION_PART_BYTES):
                place = struct.pack(">LL", len(extension), at)
                yield APP1, EXTENSION_HEADER + guid.encode() + place + part
    own = [] if metadata.iptc is None else [(IPTC, metadata.iptc)]
    resources = write_resources([*own, *metadata.photoshop])
    for _, part in _parts(resources, MAX_SEGMENT_BYTES - len(PHOTOSHOP_HEADER)):
        yield APP13, PHOTOSHOP_HEADER + part
    for text in metadata.texts:
        if text.keyword == COMMENT:
            for _, part in _parts(text.text.encode("utf-8"), MAX_SEGMENT_BYTES):
                yield COM, part


def _parts(data: bytes, size_bytes: int) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), size_bytes):
        yield at, data[at : at + size_bytes]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body
