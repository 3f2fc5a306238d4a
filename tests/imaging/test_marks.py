"""The mark that a trained model made or changed a picture, in every format."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from cascade.imaging.marks import EMPTY, mark_of, with_mark
from cascade.imaging.metadata import Metadata
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.opening import opened_image
from cascade.imaging.picture import Picture
from cascade.imaging.picture_writing import write_picture
from cascade.imaging.writing import save_png, to_pil
from cascade.imaging.xmp_packets import PacketError

SETTINGS = {"model": "photo-x4 & <co>", "version": "1.2"}
RESTORED = {
    "DigitalSourceType": "compositeWithTrainedAlgorithmicMedia",
    "AISystemUsed": "Cascade photo-x4 &amp; &lt;co&gt;",
    "AISystemVersionUsed": "1.2",
}
OTHER = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="uuid:1" xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg">'
    b"<i:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    b"</i:DigitalSourceType></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def read(path) -> dict[str, str]:
    data = path.read_bytes()
    with opened_image(data, path.name) as image:
        return mark_of(read_metadata(data, image.info).xmp)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("xmp", [None, OTHER])
def test_every_format_holds_the_mark(suffix, xmp, tmp_path):
    picture = Picture(colour=torch.zeros(3, 4, 4, dtype=torch.uint8), metadata=Metadata(xmp=xmp))
    path = tmp_path / f"a.{suffix}"
    write_picture(picture, path, settings=SETTINGS)
    assert read(path) == RESTORED
    write_picture(picture, path, settings=SETTINGS, metadata=False)
    assert read(path) == {}


def test_a_generated_picture_is_marked_as_that_and_stays_it(tmp_path):
    (image,) = to_pil(torch.zeros(1, 3, 4, 4))
    save_png(image, tmp_path / "a.png", {"model": "emoji", "version": "1.2"})
    mark = read(tmp_path / "a.png")
    assert mark["DigitalSourceType"] == "trainedAlgorithmicMedia"
    assert mark["AISystemUsed"] == "Cascade emoji"
    again = with_mark(with_mark(None, "generated", {}), "restored", SETTINGS)
    assert mark_of(again) == {**RESTORED, "DigitalSourceType": "trainedAlgorithmicMedia"}
    save_png(image, tmp_path / "b.png")
    assert read(tmp_path / "b.png") == {}


def test_the_mark_takes_the_place_of_another_and_leaves_the_rest(tmp_path):
    marked = with_mark(with_mark(OTHER, "restored", {}), "restored", SETTINGS)
    assert mark_of(marked) == RESTORED
    assert marked.count(b"DigitalSourceType") == 1
    assert b'dc:format="image/jpeg"' in marked
    assert marked.count(b'rdf:about="uuid:1"') == 2  # XMP wants all descriptions to be of one thing
    ElementTree.fromstring(marked.decode())
    ElementTree.fromstring(EMPTY.decode().split("?>", 1)[1].rsplit("<?", 1)[0])


def test_a_packet_that_is_not_safe_is_refused():
    with pytest.raises(PacketError):
        with_mark(b"<!DOCTYPE a>" + OTHER, "restored", SETTINGS)
