"""Marks in the metadata of a picture that it was made or changed by a trained model.

The mark is the property `DigitalSourceType` of the IPTC, in XMP, which every format here can hold.
Search engines, libraries and picture agencies read it. The IPTC's properties for the name and the
version of the system stand beside it (IPTC Photo Metadata Standard 2025.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from cascade.imaging.xmp_packets import RDF, Key, Packet, PacketError, Property, changed, parsed

Source = Literal["generated", "restored"]
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
PREFIX = "Iptc4xmpExt"
NEWSCODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TYPES: dict[Source, str] = {
    "generated": "trainedAlgorithmicMedia",
    "restored": "compositeWithTrainedAlgorithmicMedia",
}
SOURCE_TYPE, SYSTEM, VERSION = "DigitalSourceType", "AISystemUsed", "AISystemVersionUsed"
NAME = "Cascade"
SHEET = "made by cascade"  # begins the comment in every sheet and map that stands beside results
EMPTY = (
    f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"></rdf:RDF></x:xmpmeta>\n'
    '<?xpacket end="w"?>'
).encode()


def with_mark(xmp: bytes | None, source: Source, settings: Mapping[str, Any]) -> bytes:
    """Add the mark to an XMP packet, in the place of an earlier one.

    A picture that was generated stays marked as that when it is restored.

    Args:
        xmp: packet in UTF-8; None for a new one.
        source: how the picture came about.
        settings: how it was made; the name of the model and the version are taken from it.

    Raises:
        PacketError: if the packet cannot be parsed safely.
    """
    packet = parsed(EMPTY if xmp is None else xmp)
    if packet.root_end is None:
        packet = parsed(EMPTY)
    values = mark_values(lasting_source(packet.data, source), settings)
    changes = [(start, end, b"") for start, end in _earlier(packet)]
    about = next((each.about for each in packet.descriptions if each.about), b' rdf:about=""')
    attributes = "".join(
        f" {PREFIX}:{name}={quoteattr(text)}" for name, text in values.items() if text
    )
    description = (
        f'<rdf:Description xmlns:rdf="{RDF}"'.encode()
        + (about if about.startswith(b" ") else b" " + about)
        + f' xmlns:{PREFIX}="{IPTC}"{attributes}/>'.encode()
    )
    assert packet.root_end is not None
    changes.append((packet.root_end, packet.root_end, description))
    return changed(packet.data, changes)


def mark_values(source: Source, settings: Mapping[str, Any]) -> dict[str, str]:
    """The IPTC's properties of the mark by their names; the version is empty if it is unknown.

    Args:
        source: how the picture came about.
        settings: how it was made; the name of the model and the version are taken from it.
    """
    return {
        SOURCE_TYPE: NEWSCODES + TYPES[source],
        SYSTEM: f"{NAME} {settings.get('model') or ''}".strip(),
        VERSION: str(settings.get("version", "")),
    }


def lasting_source(xmp: bytes | None, source: Source) -> Source:
    """How a picture came about in the end: what a model made stays that when it is upscaled.

    Args:
        xmp: packet of the picture before the last step; None for none.
        source: the last step.

    Raises:
        PacketError: if the packet cannot be parsed safely.
    """
    return "generated" if mark_of(xmp).get(SOURCE_TYPE) == TYPES["generated"] else source


def says_generated(xmp: bytes | None) -> bool:
    """Whether a packet says that a model drew the picture; one that is damaged says nothing."""
    try:
        return lasting_source(xmp if isinstance(xmp, bytes) else None, "restored") == "generated"
    except PacketError:
        return False


def mark_of(xmp: bytes | None) -> dict[str, str]:
    """The IPTC's source type, system and version in a packet, by their names; empty if none.

    The source type comes without the address of the IPTC's list.

    Raises:
        PacketError: if the packet cannot be parsed safely.
    """
    marks = {}
    for each in parsed(xmp).properties if xmp else ():
        if _is_ours(each.key) and each.value is not None:
            text = xmp[slice(*each.value)] if xmp else b""
            marks[each.key[1]] = text.decode("utf-8", "replace").removeprefix(NEWSCODES)
    return marks


def _earlier(packet: Packet) -> Iterator[tuple[int, int]]:
    """The spans of an earlier mark, with descriptions that hold nothing else."""
    others = {each.description for each in packet.properties if not _is_ours(each.key)}
    emptied = {each.description for each in packet.properties} - others
    for number in emptied:
        yield packet.descriptions[number].span
    for each in packet.properties:
        if _is_ours(each.key) and each.description not in emptied:
            yield _whole(each, packet.data)


def _is_ours(key: Key) -> bool:
    return key[0] == IPTC and key[1] in (SOURCE_TYPE, SYSTEM, VERSION)


def _whole(each: Property, data: bytes) -> tuple[int, int]:
    """The span of a property, with the white space before it if it is an element."""
    start, end = each.span
    if each.is_element:
        space = re.search(rb"\s*\Z", data[:start])
        start = space.start() if space else start
    return start, end
