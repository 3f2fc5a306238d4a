from __future__ import annotations

import random
import struct

import pytest
from PIL import Image

from cascade.imaging.tiff_fields import DamagedFieldsError, Field, read_fields, write_fields

FIELDS = {
    271: Field(2, b"Maker\0"),
    274: Field(3, struct.pack("<H", 6)),
    282: Field(5, struct.pack("<LL", 300, 1)),
    0x8769: Field(4, {0x9000: Field(7, b"0231"), 0xEEEE: Field(12, struct.pack("<d", 0.5))}),
    0x8825: Field(4, {2: Field(5, struct.pack("<6L", 51, 1, 30, 1, 1225, 100)), 5: Field(1, b"")}),
}


def block(order: str = "<") -> bytes:
    """FIELDS as a file, of either byte order; the big-endian one is written by hand."""
    if order == "<":
        return b"II*\0" + struct.pack("<L", 8) + write_fields(FIELDS, 8)
    table = struct.pack(">HHLL", 282, 5, 1, 38) + struct.pack(">HHLHH", 296, 3, 1, 2, 0)
    return b"MM\0*" + struct.pack(">LH", 8, 2) + table + bytes(4) + struct.pack(">LL", 300, 1)


def test_fields_come_back_in_their_own_types():
    assert read_fields(block()) == FIELDS


def test_both_byte_orders_are_read():
    two = struct.pack("<H", 2)
    assert read_fields(block(">")) == {282: FIELDS[282], 296: Field(3, two)}


def test_a_big_tiff_is_read():
    entry = struct.pack("<HHQHHL", 274, 3, 1, 6, 0, 0) + struct.pack("<HHQQ", 282, 5, 2, 64)
    data = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2) + entry + struct.pack("<Q4L", 0, 1, 2, 3, 4)
    data = data[:60].ljust(64, b"\0") + struct.pack("<4L", 1, 2, 3, 4)
    assert read_fields(data) == {274: FIELDS[274], 282: Field(5, struct.pack("<4L", 1, 2, 3, 4))}


def test_pillow_reads_the_same():
    exif = Image.Exif()
    exif.load(block())
    assert (exif[271], exif[274], exif[282]) == ("Maker", 6, 300)
    assert exif.get_ifd(0x8769) == {0x9000: b"0231", 0xEEEE: 0.5}
    assert exif.get_ifd(0x8825)[2] == (51, 30, 12.25)


def test_damaged_fields_are_refused_and_nothing_else_happens():
    data, dice, refused = block(), random.Random(0), 0
    for _ in range(500):
        broken = bytearray(data)
        for _ in range(dice.choice([1, 4, 16])):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            read_fields(bytes(broken[: dice.randrange(len(broken) + 1)]))
        except DamagedFieldsError:
            refused += 1
    assert 100 < refused < 500


@pytest.mark.parametrize("loop", [0x8769, 0xA005])
def test_directories_that_hold_themselves_end(loop):
    entry = struct.pack("<HHLL", loop, 4, 1, 8)
    fields = read_fields(b"II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4))
    assert set(fields) == {loop}


def test_many_fields_cannot_share_one_large_value():
    entries = b"".join(struct.pack("<HHLL", tag, 1, 10_000, 0) for tag in range(1000, 1100))
    data = b"II*\0" + struct.pack("<LH", 8, 100) + entries + bytes(20_000)
    with pytest.raises(DamagedFieldsError, match="longer than the file"):
        read_fields(data)
