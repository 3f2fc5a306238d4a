from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cascade.imaging.extended_xmp import extension_guid, merged, split
from cascade.imaging.xmp_packets import (
    EXIF,
    RDF,
    TIFF,
    PacketError,
    with_values,
)

ORIENTATION, WIDTH = (TIFF, "Orientation"), (EXIF, "PixelXDimension")
HEAD = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='{RDF}'>"
TAIL = "</rdf:RDF></x:xmpmeta>"
NAMESPACES = f'xmlns:t="{TIFF}" xmlns:exif="{EXIF}" xmlns:dc="http://purl.org/dc/elements/1.1/"'


def packet(attributes: str, body: str = "") -> bytes:
    text = f'<rdf:Description rdf:about="" {NAMESPACES} {attributes}>{body}</rdf:Description>'
    return f"<?xpacket begin='\ufeff'?>\n{HEAD}{text}{TAIL}\n<?xpacket end='w'?>".encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (packet("t:Orientation='6' dc:x=\"a>b\""), packet("t:Orientation='1' dc:x=\"a>b\"")),
        (
            packet("", "<t:Orientation>6</t:Orientation>"),
            packet("", "<t:Orientation>1</t:Orientation>"),
        ),
        (
            packet("", "<dc:x>é</dc:x><exif:PixelXDimension >640</exif:PixelXDimension >"),
            packet("", "<dc:x>é</dc:x><exif:PixelXDimension >7</exif:PixelXDimension >"),
        ),
        # of another namespace, of another picture, empty, in a comment or as a text: untouched
        (packet("dc:Orientation='6'"), packet("dc:Orientation='6'")),
        (
            packet("", "<dc:x><rdf:Description t:Orientation='6'/></dc:x>"),
            packet("", "<dc:x><rdf:Description t:Orientation='6'/></dc:x>"),
        ),
        (packet("", "<t:Orientation/>"), packet("", "<t:Orientation/>")),
        (packet("", "<!-- t:Orientation='6' -->"), packet("", "<!-- t:Orientation='6' -->")),
        (packet("dc:x='t:Orientation'"), packet("dc:x='t:Orientation'")),
    ],
)
def test_only_the_named_values_change(before, after):
    assert with_values(before, {ORIENTATION: "1", WIDTH: "7"}) == after


@pytest.mark.parametrize(
    "data",
    [
        b"<a Orientation='6'>",
        b"Orientation",
        b'<!DOCTYPE a [<!ENTITY b "Orientation">]><a>&b;</a>',
        b"<a>" * 1000 + b"Orientation" + b"</a>" * 1000,
    ],
)
def test_what_cannot_be_parsed_safely_is_refused(data):
    with pytest.raises(PacketError):
        with_values(data, {ORIENTATION: "1"})
    with pytest.raises(PacketError):
        with_values(data.replace(b"Orientation", b"Title"), {ORIENTATION: "1"})


def values(data: bytes) -> dict[str, str | None]:
    """All properties, by an independent parser."""
    properties = {}
    for each in ElementTree.fromstring(data).iter(f"{{{RDF}}}Description"):
        properties |= {key: value for key, value in each.attrib.items() if RDF not in key}
        properties |= {child.tag: "".join(child.itertext()) for child in each}
    return {key: value for key, value in properties.items() if "HasExtendedXMP" not in key}


@pytest.mark.parametrize("declaration", ["", 'xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'])
def test_a_large_packet_is_split_and_joined_again_without_a_change(declaration):
    body = f"<dc:big>{'x' * 5000}</dc:big><dc:small>y</dc:small>"
    data = packet(f"t:Orientation='1' {declaration}", body)
    assert split(data, 10_000) == (data, None)
    first, extension = split(data, 2_000)
    assert extension is not None
    assert len(first) <= 2_000
    guid = extension_guid(first)
    assert guid is not None
    assert len(guid) == 32
    assert values(first) | values(extension) == values(data)
    joined = merged(first, extension)
    assert values(joined) == values(data)
    assert extension_guid(joined) is None


def test_padding_goes_before_anything_is_split():
    data = packet("t:Orientation='1'").replace(
        b"\n<?xpacket end", b"\n" + b" " * 2000 + b"<?xpacket end"
    )
    first, extension = split(data, 1_000)
    assert extension is None
    assert values(first) == values(data)


def test_a_value_that_cannot_move_is_refused():
    with pytest.raises(PacketError, match="cannot be split"):
        split(packet(f"dc:x='{'x' * 5000}'"), 2_000)
