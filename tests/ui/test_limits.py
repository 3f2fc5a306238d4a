"""Uploads are refused by their size, kind and pixels before anything decodes them."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from cascade.errors import DataError
from cascade.imaging.picture_reading import PNG_HEAD
from cascade.ui.limits import MIB, Limits


def test_a_picture_within_the_limits_passes(draw):
    Limits(megapixels=20 * 14 / 1e6).check(draw("a.png"))


def test_the_size_of_the_file_is_limited(draw):
    path = draw("a.bmp")
    limit = Limits(file_mib=(path.stat().st_size - 1) / MIB)
    with pytest.raises(DataError, match=r"^a\.bmp: .* MiB allowed; make it smaller\.$"):
        limit.check(path)


def test_the_pixels_of_all_pages_are_limited_and_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "pages.tif"
    page = Image.new("L", (100, 50))
    page.save(path, save_all=True, append_images=[page, page])
    Limits(megapixels=3 * 5000 / 1e6).check(path)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(DataError, match=r"megapixels are more than the 0\.01 allowed"):
        Limits(megapixels=0.01).check(path)


def test_only_the_head_of_a_file_is_read(draw, monkeypatch):
    monkeypatch.setattr("cascade.ui.limits.read_bytes", None)
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp"):
        Limits().check(draw(name))
        with pytest.raises(DataError, match=f"{name}: 0.0 megapixels are more than"):
            Limits(megapixels=20 * 14 / 1e6 - 1e-6).check(draw(name))


def test_the_pixels_of_results_are_limited(draw):
    limits = Limits(result_megapixels=4 * 20 * 14 / 1e6)
    limits.check(draw("a.png"), scale=2)
    good, faults = limits.sort([draw("a.png")], scale=2.5)
    assert good == []
    assert faults == [
        "a.png: at 2.5×, 0.0 megapixels are more than the 0.00112 allowed; choose a smaller factor."
    ]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def test_a_picture_that_would_fill_the_memory_is_refused_by_its_head(tmp_path):
    path = tmp_path / "bomb.png"
    head = chunk(b"IHDR", struct.pack(">2L5B", 15000, 15000, 8, 2, 0, 0, 0))
    path.write_bytes(PNG_HEAD + head + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(DataError, match=r"225\.0 megapixels are more than the 100 allowed"):
        Limits().check(path)


@pytest.mark.parametrize("name", ["notes.txt", "script.svg", "page.html"])
def test_what_is_no_picture_is_refused_whatever_its_name(tmp_path, name):
    for path in (tmp_path / name, tmp_path / f"{name}.png"):
        path.write_text("<svg onload='alert(1)'/>")
        with pytest.raises(DataError, match="not a readable image"):
            Limits().check(path)


def test_shards_are_refused_since_the_commands_would_open_them(draw):
    path = draw("a.png")
    with pytest.raises(DataError, match="not shards"):
        Limits().check(path.rename(path.with_name("a.tar")))


def test_good_files_are_sorted_from_others_and_all_faults_are_named(draw, tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    paths = [draw("a.png"), tmp_path / "x.jpg", tmp_path / "gone.png", draw("b.png"), draw("c.png")]
    good, faults = Limits(files=4).sort(paths)
    assert [path.name for path in good] == ["a.png", "b.png"]
    assert [fault.split(":")[0] for fault in faults] == [
        "x.jpg", "gone.png", "only the first 4 of 5 files are taken."
    ]  # fmt: skip
