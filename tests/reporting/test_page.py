from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cascade.reporting.page import MAX_SIDE_PX, code, counts, facts, note, page, picture, table


def inside(html: str) -> tuple[str, Image.Image]:
    """Kind and content of the picture in a figure."""
    kind, data = re.search(r"data:image/(\w+);base64,([^\"]+)", html).groups()
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    "html",
    [
        note("<x>"),
        code("<x>"),
        facts({"<x>": "<x>"}),
        counts({"<x>": 3}),
        table(["<x>"], [["<x>"]]),
        picture(Image.new("RGB", (2, 2)), '<x>"'),
        page("<x>", "<x>", [("<x>", note(""))]),
    ],
)
def test_text_stays_text(html):
    assert "<x>" not in html
    assert "&lt;x&gt;" in html


def test_sections_without_content_are_left_out():
    text = page("t", "", [("full", note("here")), ("empty", note("")[:0])])
    assert "full" in text
    assert "empty" not in text


def test_a_light_picture_is_kept_bit_by_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    kind, image = inside(picture(Image.fromarray(pixels), "c"))
    assert kind == "png"
    assert (np.asarray(image) == pixels).all()


def test_a_heavy_picture_becomes_lighter():
    pixels = np.random.default_rng(0).integers(0, 256, (700, 1400, 3), dtype=np.uint8)
    html = picture(Image.fromarray(pixels), "c")
    kind, image = inside(html)
    assert (kind, image.size) == ("jpeg", (MAX_SIDE_PX, MAX_SIDE_PX // 2))
    assert len(html) < 1_000_000


def test_a_small_picture_is_shown_larger_by_a_whole_factor():
    assert 'class="small" width="420"' in picture(Image.new("RGB", (70, 70)), "c")
    assert "small" not in picture(Image.new("RGB", (300, 300)), "c")
