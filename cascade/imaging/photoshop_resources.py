"""Photoshop resources, in which JPEG, TIFF and PNG files hold IPTC.

A resource is `8BIM`, a number, a name (a length, letters, padded to an even number of bytes), and
its data (4 bytes of length, padded to an even number of bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from cascade.imaging.metadata import Loss, Metadata

SIGNATURE = b"8BIM"
IPTC, IPTC_DIGEST, COPYRIGHT_FLAG, URL = 0x0404, 0x0425, 0x040A, 0x040B
KEPT = (IPTC_DIGEST, COPYRIGHT_FLAG, URL)  # the others describe the old file or its window
PATHS = range(0x07D0, 0x0BB7)  # clipping paths and their name
RECORD_MARK = 0x1C  # the first byte of every IPTC record


def read_resources(data: bytes) -> list[tuple[int, bytes]]:
    """Split resources into numbers and data; everything from the first damaged one is left out."""
    resources, at = [], 0
    while data[at : at + 4] == SIGNATURE and at + 12 <= len(data):
        (number,) = struct.unpack_from(">H", data, at + 4)
        name_bytes = 1 + data[at + 6]
        at += 6 + name_bytes + name_bytes % 2
        if at + 4 > len(data):
            break
        (length,) = struct.unpack_from(">L", data, at)
        body = data[at + 4 : at + 4 + length]
        if len(body) < length:
            break
        resources.append((number, body))
        at += 4 + length + length % 2
    return resources


def write_resources(resources: Iterable[tuple[int, bytes]]) -> bytes:
    """The inverse of `read_resources`; the names are empty."""
    parts = []
    for number, body in resources:
        head = SIGNATURE + struct.pack(">HHL", number, 0, len(body))
        parts.append(head + body + bytes(len(body) % 2))
    return b"".join(parts)


def metadata_of_resources(data: bytes) -> Metadata:
    """What a picture keeps of the Photoshop resources in its file."""
    resources = read_resources(data)
    has_paths = any(number in PATHS for number, _ in resources)
    lost = Loss("Photoshop paths", "only Photoshop resources that describe the image are kept")
    return Metadata(
        iptc=dict(resources).get(IPTC) or None,
        photoshop=tuple(each for each in resources if each[0] in KEPT),
        losses=(lost,) if has_paths else (),
    )


def iptc_in_file_order(data: bytes) -> bytes | None:
    """IPTC records of a TIFF field, some of which were written with each four bytes reversed.

    Returns:
        The records without padding; None if these are not IPTC records.
    """
    if data[:1] != bytes([RECORD_MARK]) and data[3:4] == bytes([RECORD_MARK]):
        padded = data + bytes(-len(data) % 4)
        data = b"".join(padded[at : at + 4][::-1] for at in range(0, len(padded), 4))
    return data.rstrip(b"\0") if data[:1] == bytes([RECORD_MARK]) else None
