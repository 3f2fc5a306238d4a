from __future__ import annotations

import io
import struct

import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from PIL.TiffTags import ASCII, BYTE, LONG, RATIONAL, SHORT, SIGNED_RATIONAL, UNDEFINED
from test_exif_blocks import EXIF, GPS, INTEROPERABILITY, MAIN, directories_of, fields_of

from cascade.imaging.exif_blocks import read_directories, write_block
from cascade.imaging.kept_exif import kept_exif, renewed_exif
from cascade.imaging.metadata import Metadata
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import decode_picture, read_picture
from cascade.imaging.picture_writing import write_picture

MAKER_NOTE, WIDTH, HEIGHT = 0x927C, 0xA002, 0xA003
KEPT = {  # (type, value) by directory and tag
    MAIN: {
        270: (ASCII, "Zoë".encode()),
        271: (ASCII, b"Maker"),
        315: (ASCII, b"A. Author"),
        18246: (SHORT, 4),
        33432: (ASCII, b"2020 A. Author"),
        40092: (BYTE, "fine".encode("utf-16-le")),
    },
    EXIF: {
        0x829A: (RATIONAL, IFDRational(1, 250)),
        0x9003: (ASCII, b"2020:01:02 03:04:05"),
        0x9204: (SIGNED_RATIONAL, IFDRational(2, 3)),
        0x9286: (UNDEFINED, b"UNICODE\0" + "größe".encode("utf-16-le")),
        0xA001: (SHORT, 65535),
        0xA434: (ASCII, "Größe 50 mm".encode()),
        0xEEEE: (BYTE, b"a field that nobody knows"),
    },
    GPS: {2: (RATIONAL, (IFDRational(51), IFDRational(30), IFDRational(49, 4)))},
    INTEROPERABILITY: {1: (ASCII, b"R03")},
}
LEFT_OUT = {
    MAIN: {256: (LONG, 999), 282: (RATIONAL, IFDRational(72)), 700: (BYTE, b"<xmp>")},
    EXIF: {MAKER_NOTE: (UNDEFINED, b"private notes")},
}


def with_fields(fields: dict, others: dict) -> dict:
    return {pointer: fields.get(pointer, {}) | others.get(pointer, {}) for pointer in fields}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_every_kept_field_survives_in_its_own_type(tmp_path, suffix):
    stored = with_fields(KEPT, LEFT_OUT | {EXIF: {WIDTH: (SHORT, 9), HEIGHT: (SHORT, 8)}})
    picture = Picture(
        colour=torch.zeros(3, 5, 7, dtype=torch.uint8),
        metadata=Metadata(exif=kept_exif(write_block(directories_of(stored)), (5, 7))),
    )
    write_picture(picture, tmp_path / f"a{suffix}", settings={"seed": 5})
    exif = read_picture(tmp_path / f"a{suffix}").metadata.exif
    assert exif is not None
    fields = fields_of(read_directories(exif))
    fields[EXIF].pop(0x9213, None)  # the settings
    renewed = {MAIN: {274: (SHORT, 1)}, EXIF: {WIDTH: (LONG, 7), HEIGHT: (LONG, 5)}}
    assert fields == with_fields(KEPT, renewed)


def test_a_size_is_renewed_but_not_added():
    block = kept_exif(write_block(directories_of(KEPT)), (5, 7))
    assert block is not None
    assert renewed_exif(block, (50, 70)) == block
    sized = with_fields(KEPT, {EXIF: {WIDTH: (SHORT, 7)}})
    fields = fields_of(read_directories(renewed_exif(write_block(directories_of(sized)), (50, 70))))
    assert fields[EXIF] == KEPT[EXIF] | {WIDTH: (LONG, 70)}


def test_without_a_field_to_keep_there_is_no_exif():
    for fields in ({}, LEFT_OUT, {MAIN: {274: (SHORT, 6)}}):
        assert kept_exif(write_block(directories_of({MAIN: {}} | fields)), (5, 7)) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_field_does_not_take_other_directories_with_it(kind):
    block = bytearray(write_block(directories_of(KEPT)))
    entry = block.index(struct.pack("<HHL", 2, RATIONAL, 3))  # the latitude
    block[entry + 8 : entry + 12] = struct.pack("<L", 2**31 - 1)  # far beyond the end
    file = io.BytesIO()
    Image.new("RGB", (7, 5)).save(file, kind, exif=b"Exif\0\0" + bytes(block))
    exif = decode_picture(file.getvalue(), "a").metadata.exif
    assert exif is not None
    fields = fields_of(read_directories(exif))
    assert GPS not in fields
    assert fields[EXIF] == KEPT[EXIF]
