"""XMP packets that are too large for a segment of JPEG.

JPEG holds at most 64 KiB in one packet. What does not fit goes into a second packet, the extension,
which the first one names by its MD5 digest (XMP specification, part 3, 1.1.3.1).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from cascade.imaging.xmp_packets import (
    RDF,
    Description,
    Packet,
    PacketError,
    Property,
    changed,
    parsed,
)

NOTE = "http://ns.adobe.com/xmp/note/"
HAS_EXTENSION = (NOTE, "HasExtendedXMP")
PADDING = re.compile(rb"\s{64,}(?=<\?xpacket end)")


def merged(data: bytes, extension: bytes) -> bytes:
    """Put the extension of a packet into the packet itself.

    Raises:
        PacketError: if either cannot be parsed safely.
    """
    packet, other = parsed(data), parsed(extension)
    if packet.root_end is None:
        raise PacketError("the packet has no place for its extension")
    changes = [
        (each.span[0], each.span[1], b"") for each in packet.properties if each.key == HAS_EXTENSION
    ]
    moved = b"".join(
        changed(
            extension[slice(*each.span)],
            [(at := each.name_end - each.span[0], at, _declarations(each.inherited))],
        )
        for each in other.descriptions
    )
    return changed(data, [*changes, (packet.root_end, packet.root_end, moved)])


def extension_guid(data: bytes) -> str | None:
    """The digest of the extension that a packet names; None if it names none.

    Raises:
        PacketError: if the packet cannot be parsed safely.
    """
    if HAS_EXTENSION[1].encode() not in data:
        return None
    for each in parsed(data).properties:
        if each.key == HAS_EXTENSION and each.value is not None:
            return data[slice(*each.value)].decode("ascii", "replace").strip()
    return None


def split(data: bytes, max_bytes: int) -> tuple[bytes, bytes | None]:
    """Move the largest properties of a packet into an extension if the packet is too large.

    Args:
        data: XMP packet.
        max_bytes: largest size of the packet that is returned first.

    Returns:
        The packet and its extension, or None if none is needed.

    Raises:
        PacketError: if the packet cannot be parsed safely, or not be split so that it fits.
    """
    if len(data) <= max_bytes:
        return data, None
    data = PADDING.sub(b"\n", data)
    if len(data) <= max_bytes:
        return data, None
    packet = parsed(data)
    if not packet.descriptions:
        raise PacketError("the packet cannot be split")
    first = packet.descriptions[0]
    elements = [each for each in packet.properties if each.is_element]
    elements.sort(key=lambda each: each.span[0] - each.span[1])
    moved: list[Property] = []
    size_bytes = len(data) + len(_note(first, "0" * 32))
    while size_bytes > max_bytes and elements:
        moved.append(elements.pop(0))
        size_bytes -= moved[-1].span[1] - moved[-1].span[0]
    if size_bytes > max_bytes:
        raise PacketError("the packet cannot be split")
    extension = _extension(packet, sorted(moved, key=lambda each: each.span))
    digest = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    removals = [(each.span[0], each.span[1], b"") for each in moved]
    note = (first.name_end, first.name_end, _note(first, digest))
    return changed(data, [note, *removals]), extension


def _note(description: Description, digest: str) -> bytes:
    """The attribute that names an extension, with its namespace if that is not declared yet."""
    prefixes = ("xmpNote", *(f"xmpNote{number}" for number in range(1, 100)))
    prefix = next(each for each in prefixes if description.declared.get(each, NOTE) == NOTE)
    declaration = "" if prefix in description.declared else f' xmlns:{prefix}="{NOTE}"'
    return f'{declaration} {prefix}:HasExtendedXMP="{digest}"'.encode()


def _extension(packet: Packet, moved: list[Property]) -> bytes:
    parts = []
    for number, each in enumerate(packet.descriptions):
        body = b"".join(packet.data[slice(*p.span)] for p in moved if p.description == number)
        if body:
            name = packet.data[each.span[0] + 1 : each.name_end]
            namespaces = _declarations(each.inherited | each.declared)
            parts.append(b"<%b%b%b>%b</%b>" % (name, each.about, namespaces, body, name))
    head = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%b">' % RDF.encode()
    return head + b"".join(parts) + b"</rdf:RDF></x:xmpmeta>"


def _declarations(namespaces: Mapping[str, str]) -> bytes:
    names = {f"xmlns:{prefix}" if prefix else "xmlns": uri for prefix, uri in namespaces.items()}
    return "".join(f" {name}={quoteattr(uri)}" for name, uri in names.items()).encode()
