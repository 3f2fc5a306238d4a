"""XMP packets: single values are replaced in place, so that every other byte stays as it is.

A packet is XML: `rdf:RDF` holds elements `rdf:Description`, whose attributes and children are the
properties. Packets are untrusted. A document type is refused, so there are no entities to expand
and no files to load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TIFF = "http://ns.adobe.com/tiff/1.0/"
EXIF = "http://ns.adobe.com/exif/1.0/"
PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
ROOT, DESCRIPTION = (RDF, "RDF"), (RDF, "Description")
MAX_DEPTH = 200
NAME = re.compile(rb"<[^\s/>]+")
ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")

Key = tuple[str, str]  # namespace and local name


class PacketError(ValueError):
    """A packet is not well-formed or not safe to parse."""


@dataclass
class Property:
    """A property at the top of a packet.

    Attributes:
        key: namespace and local name.
        span: first byte and end of the whole attribute or element.
        value: first byte and end of the value; None if the property has parts of its own.
        description: the description that holds it, counted from 0.
        is_element: whether it is an element, not an attribute.
    """

    key: Key
    span: tuple[int, int]
    value: tuple[int, int] | None
    description: int
    is_element: bool


@dataclass
class Description:
    """An element `rdf:Description`.

    Attributes:
        span: first byte and end.
        name_end: end of its name in its first tag.
        about: its attribute `rdf:about` as in the file, or empty.
        inherited: namespaces in scope, by prefix, that it does not declare itself.
        declared: those that it declares itself.
    """

    span: tuple[int, int]
    name_end: int
    about: bytes
    inherited: dict[str, str]
    declared: dict[str, str]


@dataclass
class Packet:
    """The places of properties and descriptions in a packet; `root_end` is that of `</rdf:RDF>`."""

    data: bytes
    properties: list[Property] = field(default_factory=list)
    descriptions: list[Description] = field(default_factory=list)
    root_end: int | None = None


def with_values(data: bytes, values: Mapping[Key, str]) -> bytes:
    """Replace the values of properties that a packet has; others are not added.

    Args:
        data: XMP packet.
        values: new values by namespace and local name.

    Raises:
        PacketError: if the packet cannot be parsed safely.
    """
    changes: list[tuple[int, int, bytes]] = []
    for each in parsed(data).properties:
        if each.key in values and each.value is not None:
            new = escape(values[each.key], {'"': "&quot;", "'": "&apos;"}).encode()
            changes.append((each.value[0], each.value[1], new))
    return changed(data, changes)


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Replace spans of bytes that do not overlap."""
    for start, end, new in sorted(changes, reverse=True):
        data = data[:start] + new + data[end:]
    return data


def parsed(data: bytes) -> Packet:
    """Find the properties and descriptions of a packet in UTF-8.

    Raises:
        PacketError: if it cannot be parsed safely.
    """
    return _Scan(data).packet


class _Scan:
    """One pass over a packet, by the events of expat."""

    def __init__(self, data: bytes) -> None:
        self.packet = Packet(data)
        self.path: list[Key] = []
        self.scopes: list[dict[str, str]] = [{"xml": "http://www.w3.org/XML/1998/namespace"}]
        self.tag_ends: list[int] = []
        self.open: Property | None = None
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        try:
            self.parser.Parse(data.rstrip(b"\0 \t\r\n"), True)
        except expat.ExpatError as error:
            raise PacketError(str(error)) from error

    def _refuse(self, *_: object) -> None:
        raise PacketError("the packet has a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        at, data = self.parser.CurrentByteIndex, self.packet.data
        if len(self.path) >= MAX_DEPTH:
            raise PacketError("the packet is nested too deeply")
        prefixes = {key: uri for key, uri in attributes.items() if key.split(":")[0] == "xmlns"}
        declared = {key.partition(":")[2]: uri for key, uri in prefixes.items()}
        scope = self.scopes[-1] | declared
        match = NAME.match(data, at)
        if match is None:
            raise PacketError("a tag is not where it should be")
        name_end = end = match.end()
        found: dict[Key, re.Match[bytes]] = {}
        while attribute := ATTRIBUTE.match(data, end):
            found[_key(attribute[1].decode("utf-8"), scope, "")] = attribute
            end = attribute.end()
        end = data.index(b">", end) + 1
        key = _key(name, scope, scope.get("", ""))
        if key == DESCRIPTION and self._is_in_root(1):
            about = found.get((RDF, "about"))
            outer = {k: v for k, v in self.scopes[-1].items() if k not in declared and k != "xml"}
            self.packet.descriptions.append(
                Description((at, 0), name_end, about[0] if about else b"", outer, declared)
            )
            number = len(self.packet.descriptions) - 1
            self.packet.properties += [
                Property(each, match.span(), (match.start(2) + 1, match.end(2) - 1), number, False)
                for each, match in found.items()
                if each[0] not in ("", RDF)
            ]
        elif self._is_in_root(2) and self.path[-1] == DESCRIPTION:
            self.open = Property(key, (at, 0), (end, 0), len(self.packet.descriptions) - 1, True)
        elif self.open is not None:
            self.open.value = None
        self.path.append(key)
        self.scopes.append(scope)
        self.tag_ends.append(end)

    def _end(self, name: str) -> None:
        at, key, data = self.parser.CurrentByteIndex, self.path.pop(), self.packet.data
        self.scopes.pop()
        tag_end = self.tag_ends.pop()
        is_empty = data[tag_end - 2 : tag_end] == b"/>"
        end = tag_end if is_empty else data.index(b">", at) + 1
        if key == ROOT and ROOT not in self.path and not is_empty:
            self.packet.root_end = at
        elif key == DESCRIPTION and self._is_in_root(1):
            each = self.packet.descriptions[-1]
            each.span = (each.span[0], end)
        elif self.open is not None and self._is_in_root(2):
            value = self.open.value
            self.open.span = (self.open.span[0], end)
            self.open.value = None if value is None or is_empty else (value[0], at)
            self.packet.properties.append(self.open)
            self.open = None

    def _is_in_root(self, depth: int) -> bool:
        """Whether the next element is at this depth below `rdf:RDF`."""
        return (
            len(self.path) >= depth
            and ROOT in self.path
            and (self.path.index(ROOT) == len(self.path) - depth)
        )


def _key(name: str, scope: Mapping[str, str], default: str) -> Key:
    prefix, colon, local = name.partition(":")
    return (scope.get(prefix, ""), local) if colon else (default, name)
