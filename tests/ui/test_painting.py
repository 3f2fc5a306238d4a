"""Strokes of the browser become hints and masks, and nothing else gets through."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.errors import CascadeError
from cascade.imaging.picture import Picture
from cascade.ui.limits import Limits
from cascade.ui.painting import START, painting, write_mask, write_strokes
from cascade.ui.previews import picture_url


def as_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return START + base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def stroke() -> Image.Image:
    """An opaque red square in the middle of 40x20 transparent pixels."""
    image = Image.new("RGBA", (40, 20))
    image.paste((200, 0, 0, 255), (10, 5, 30, 15))
    return image


def test_strokes_are_written_as_they_were_painted(tmp_path, stroke):
    file = write_strokes(as_url(stroke), tmp_path / "hints.png", Limits())
    assert file == tmp_path / "hints.png"
    assert np.array_equal(Image.open(file), stroke)


def test_nothing_painted_is_no_file(tmp_path):
    assert write_strokes("", tmp_path / "hints.png", Limits()) is None


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "data:image/svg+xml;base64,AAAA", START + "?", START + "QUJD", START]
)
def test_what_is_no_png_is_refused_in_one_line(tmp_path, text):
    with pytest.raises(CascadeError) as error:
        write_strokes(text, tmp_path / "hints.png", Limits())
    assert "\n" not in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_strokes_have_the_limits_of_uploads(tmp_path, stroke):
    with pytest.raises(CascadeError, match="megapixels"):
        write_strokes(as_url(stroke), tmp_path / "hints.png", Limits(megapixels=0.0001))


def test_a_mask_has_the_size_of_its_picture_and_is_white_on_the_strokes(tmp_path, stroke, draw):
    strokes = write_strokes(as_url(stroke), tmp_path / "strokes.png", Limits())
    mask = Image.open(write_mask(strokes, draw("a.png", size=(80, 40)), tmp_path / "mask.png"))
    assert (mask.mode, mask.size) == ("L", (80, 40))
    expected = np.zeros((40, 80), np.uint8)
    expected[10:30, 20:60] = 255
    assert np.array_equal(mask, expected)


def test_the_canvas_has_the_shape_of_the_picture_and_escapes_its_name(draw):
    html = painting(draw('a"><script>.png', size=(30, 10)), "paint", colours=True)
    assert 'width="1020" height="340"' in html
    assert "<script" not in html
    assert painting(None, "paint", colours=True) == ""


def test_few_pixels_of_a_large_picture_are_converted(monkeypatch):
    picture = Picture(colour=torch.zeros(3, 900, 1200, dtype=torch.uint8))
    sizes, convert = [], Picture.in_srgb

    def in_srgb(small: Picture) -> Picture:
        sizes.append(small.size)
        return convert(small)

    monkeypatch.setattr(Picture, "in_srgb", in_srgb)
    _, size = picture_url(picture, 100)
    assert sizes == [(150, 200)]
    assert size == (100, 75)
