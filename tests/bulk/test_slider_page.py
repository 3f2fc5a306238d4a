from __future__ import annotations

import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.bulk.sheets import pairs_of, write_comparison, write_variants
from cascade.bulk.slider_page import check_page, write_page
from cascade.errors import OutputError
from cascade.imaging.picture import Picture


class Page(HTMLParser):
    """The elements of a page; fails if a tag is not closed."""

    VOID = ("meta", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def values(self, tag: str, name: str) -> list[str]:
        return [str(values[name]) for each, values in self.elements if each == tag]


def picture(width: int, height: int, value: int) -> Picture:
    return Picture(colour=torch.full((3, height, width), value, dtype=torch.uint8))


def write_sheet(path: Path, *, size: tuple[int, int] = (60, 40)) -> Path:
    """A sheet whose left side is dark and whose right side is bright."""
    width, height = size
    small = picture(max(1, width // 4), max(1, height // 4), 40)
    write_comparison(small, picture(width, height, 210), path, before="bicubic", caption="x")
    return path


def read_page(folder: Path) -> Page:
    write_page(folder, "upscale")
    return Page((folder / "index.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("size", [(60, 40), (3000, 1000), (300, 5000), (8000, 8), (2, 4000)])
def test_a_sheet_knows_where_it_shows_before_and_after(tmp_path, size):
    path = write_sheet(tmp_path / "a.jpg", size=size)
    sheet_size, pairs = pairs_of(path)
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet).astype(int)
        assert sheet.size == sheet_size
    assert len(pairs) == (1 if size == (60, 40) else 2)
    for pair in pairs:
        rows = slice(pair.top, pair.top + pair.height)
        for left, value in ((pair.left, 40), (pair.right, 210)):
            part = pixels[rows, left : left + pair.width]
            assert part.shape[:2] == (pair.height, pair.width)
            assert np.abs(part - value).mean() < (4 if min(part.shape[:2]) > 16 else 70)  # JPEG


def test_other_pictures_have_no_pairs(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg", comment="made by cascade [[1]]")
    (tmp_path / "c.jpg").write_text("text")
    write_variants([("one", picture(9, 9, 3)), ("two", picture(9, 9, 4))], tmp_path / "d.png")
    assert [pairs_of(path)[1] for path in sorted(tmp_path.iterdir())] == [[]] * 4
    write_page(tmp_path, "upscale")
    assert not (tmp_path / "index.html").exists()


def test_the_page_has_a_slider_for_every_pair_and_refers_to_nothing_but_the_sheets(tmp_path):
    folder = tmp_path / "compare"
    write_sheet(folder / "a.png.jpg")
    write_sheet(folder / "sub" / "b.jpg.jpg", size=(3000, 1000))
    (tmp_path / "a.png").touch()
    page = read_page(folder)
    expected = ["a.png.jpg"] * 2 + ["sub/b.jpg.jpg"] * 4
    assert page.values("img", "src") == expected
    assert page.values("img", "loading") == ["lazy"] * 6
    assert [tag for tag, _ in page.elements].count("input") == 3
    assert page.values("a", "href") == ["../a.png"]  # the other result is not there
    assert "a.png" in page.words
    assert "2 results" in page.words
    text = (folder / "index.html").read_text()
    assert not re.search(r"https?:|//|url\(|@import", text)


def test_names_are_escaped_and_links_lead_to_the_files(tmp_path):
    folder = tmp_path / "compare"
    names = ['<b>&"x".jpg', "a b#1?.jpg", "größe 日本.jpg"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"caf\xe9.jpg"))
    for name in names:
        write_sheet(folder / name)
    page = read_page(folder)
    assert not any(tag == "b" for tag, _ in page.elements)
    links = {os.fsdecode(unquote_to_bytes(link)) for link in page.values("img", "src")}
    assert links == set(names)
    assert all((folder / link).is_file() for link in links)
    assert '<b>&"x"' in page.words


def test_an_older_page_is_replaced_and_another_file_is_not(tmp_path):
    write_sheet(tmp_path / "a.jpg")
    check_page(tmp_path)
    write_page(tmp_path, "upscale")
    write_sheet(tmp_path / "b.jpg")
    check_page(tmp_path)
    assert len(read_page(tmp_path).values("img", "src")) == 4
    (tmp_path / "index.html").write_text("<html>mine</html>")
    with pytest.raises(OutputError, match=r"index.html already exists and is not a page of this"):
        check_page(tmp_path)
