"""A standard deviation in false colours, with a bar that says what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.imaging.rasters import deviation_picture as module
from cascade.imaging.rasters.deviation_picture import (
    COLOURS,
    GAP_PX,
    MISSING,
    Panel,
    deviation_picture,
    largest_shown,
)
from cascade.imaging.rasters.showing import colours_of


def test_colours_grow_with_the_values_pixel_by_pixel():
    values = np.linspace(0, 8, 40 * 300, dtype=np.float32).reshape(40, 300)
    picture = deviation_picture([Panel(values=values, caption="standard deviation")])
    numbers = np.asarray(picture)[:40, :300]
    expected = (values / 8).clip(0, 1) * (COLOURS - 1)
    assert np.abs(numbers - expected).max() <= 0.5 + 1e-3
    rgb = np.asarray(picture.convert("RGB"))
    first = (colours_of("viridis", COLOURS)[:, 0] * 255).round().byte()
    assert torch.equal(torch.from_numpy(rgb[0, 0].copy()), first)


def test_a_small_picture_is_wide_enough_for_its_caption():
    caption = "standard deviation, 4 seeds, first image of many"
    (text_px, height), values = (module.LEAST_TEXT_PX, 8), np.zeros((8, 8))
    letters = np.asarray(deviation_picture([Panel(values=values, caption=caption)]))[height + 4 :]
    letters = letters[text_px:]
    assert (letters == module.BLACK).any()
    assert not (letters[:, -1] == module.BLACK).any()


def test_no_colour_is_darker_than_one_of_smaller_values():
    luminance = torch.tensor([0.2126, 0.7152, 0.0722]) @ colours_of("viridis", COLOURS) ** 2.2
    assert (luminance.diff() > -1e-6).all()
    assert luminance[-1] > 20 * luminance[0]


def test_missing_numbers_are_grey_and_need_no_value():
    values = np.array([[0.0, np.nan], [1.0, 2.0]])
    picture = deviation_picture([Panel(values=values, caption="c")])
    assert np.asarray(picture)[0, 1] == MISSING
    assert picture.convert("RGB").getpixel((1, 0)) == module.GREY
    nothing = deviation_picture([Panel(values=np.full((2, 2), np.nan), caption="c")])
    assert (np.asarray(nothing)[:2, :2] == MISSING).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full(100, 0.0), 1.0),
        (np.full(100, 3.14159), 3.2),
        (np.r_[np.full(1000, 0.0123), 50.0], 0.013),
        (np.r_[np.zeros(10_000), 7.0], 7.0),
        (np.arange(3_000_000) % 4096, 4100),
    ],
)
def test_the_bar_ends_above_nearly_all_values(values, expected):
    assert largest_shown(values) == pytest.approx(expected)


def test_panels_stand_side_by_side_with_bars_of_their_own(monkeypatch):
    texts = []
    original = module.ImageDraw.ImageDraw.text

    def noted(self, xy, text, *arguments, **options):
        texts.append(text)
        original(self, xy, text, *arguments, **options)

    monkeypatch.setattr(module.ImageDraw.ImageDraw, "text", noted)
    values = np.ones((20, 400))
    outlier = values * 250
    outlier[0, 0] = 9000
    picture = deviation_picture(
        [
            Panel(values=values, caption="band 1", unit="mK"),
            Panel(values=outlier, caption="band 2", unit="HU"),
        ]
    )
    assert (picture.mode, picture.width) == ("P", 800 + GAP_PX)
    assert texts == ["0", "1 mK", "band 1", "0", "250 HU and more", "band 2"]
    bar = np.asarray(picture)[22, :400]
    assert (bar[0], bar[-1]) == (0, COLOURS - 1)
    assert isinstance(picture, Image.Image)
