from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from PIL.TiffTags import ASCII, BYTE, DOUBLE, RATIONAL, SHORT, SIGNED_RATIONAL, UNDEFINED

from cascade.imaging.exif_blocks import MAIN, Directory, read_directories, write_block

EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
FIELDS = {  # (type, value) by directory and tag
    MAIN: {271: (ASCII, b"Maker"), 274: (SHORT, 6), 282: (RATIONAL, IFDRational(300))},
    EXIF: {
        0x9286: (UNDEFINED, b"UNICODE\0hello"),
        0x9204: (SIGNED_RATIONAL, IFDRational(2, 3)),
        0xA434: (ASCII, "größe".encode()),
        0xEEEE: (DOUBLE, 0.5),
        0xEEEF: (BYTE, b"\1\2\3"),
    },
    GPS: {
        1: (ASCII, (b"N",)),
        2: (RATIONAL, (IFDRational(51), IFDRational(30), IFDRational(1, 4))),
    },
    INTEROPERABILITY: {1: (ASCII, b"R03")},
}


def directories_of(fields: dict) -> dict[int, Directory]:
    directories = {}
    for pointer, typed_values in fields.items():
        directories[pointer] = Directory(group=None if pointer == MAIN else pointer)
        for tag, (field_type, value) in typed_values.items():
            directories[pointer].tagtype[tag] = field_type
            directories[pointer][tag] = value
    return directories


def fields_of(directories: dict[int, Directory]) -> dict:
    return {
        pointer: {tag: (directory.tagtype[tag], value) for tag, value in directory.items()}
        for pointer, directory in directories.items()
    }


def test_fields_come_back_in_their_own_types():
    block = write_block(directories_of(FIELDS))
    assert fields_of(read_directories(block)) == FIELDS
    assert fields_of(read_directories(b"Exif\0\0" + block)) == FIELDS
    assert write_block(read_directories(block)) == block


def test_pillow_reads_the_same():
    exif = Image.Exif()
    exif.load(write_block(directories_of(FIELDS)))
    assert (exif[271], exif[274], exif[282]) == ("Maker", 6, 300)
    inner = exif.get_ifd(EXIF)
    assert (inner[0x9286], inner[0x9204], inner[0xEEEE]) == (b"UNICODE\0hello", 2 / 3, 0.5)
    assert exif.get_ifd(GPS) == {1: "N", 2: (51, 30, 0.25)}
    assert exif.get_ifd(INTEROPERABILITY) == {1: "R03"}


def test_directories_without_fields_are_not_written():
    fields = {MAIN: FIELDS[MAIN], EXIF: {}, GPS: FIELDS[GPS]}
    assert set(read_directories(write_block(directories_of(fields)))) == {MAIN, GPS}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_both_byte_orders_of_tiff_and_big_tiff_are_read(order, is_big):
    mark = {"<": b"II", ">": b"MM"}[order]
    if is_big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16)
        table = struct.pack(order + "Q HHQHHL HHQLL Q", 2, 274, 3, 1, 6, 0, 0, 282, 5, 1, 300, 1, 0)
    else:
        head = mark + struct.pack(order + "HL", 42, 8)
        table = struct.pack(order + "H HHLHH HHLL L", 2, 274, 3, 1, 6, 0, 282, 5, 1, 38, 0)
        table += struct.pack(order + "LL", 300, 1)
    directories = read_directories(head + table)
    assert fields_of(directories) == {MAIN: {274: (SHORT, 6), 282: (RATIONAL, IFDRational(300))}}


def test_damaged_blocks_give_what_can_be_written_again():
    block, dice = write_block(directories_of(FIELDS)), random.Random(0)
    damaged = 0
    for _ in range(500):
        broken = bytearray(block)
        for _ in range(dice.choice([1, 4, 16])):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        directories = read_directories(bytes(broken[: dice.randrange(len(broken) + 1)]))
        damaged += fields_of(directories) != FIELDS
        rewritten = write_block(directories)
        assert write_block(read_directories(rewritten)) == rewritten
    assert damaged > 400


@pytest.mark.parametrize("pointer", [EXIF, GPS, INTEROPERABILITY])
def test_directories_that_contain_themselves_end(pointer):
    entry = struct.pack("<HHLL", pointer, 4, 1, 8)
    block = b"II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4)
    assert not any(read_directories(block).values())


@pytest.mark.skipif(not hasattr(Directory(), "_tag_data_limit"), reason="Pillow before 13")
def test_many_fields_cannot_share_one_large_value():
    entries = b"".join(struct.pack("<HHLL", tag, 1, 100_000, 0) for tag in range(1000, 1100))
    block = b"II*\0" + struct.pack("<LH", 8, 100) + entries + bytes(200_000)
    tracemalloc.start()
    read_directories(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
