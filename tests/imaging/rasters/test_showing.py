"""How people see images of bands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.errors import ContractError
from cascade.imaging.rasters.showing import as_rgb, seen_bands, with_scale_bar
from cascade.space import Space

IMAGES = torch.linspace(-1, 1, 4)[None, :, None, None].expand(2, 4, 3, 5)  # band n is constant


@pytest.mark.parametrize(
    ("show", "bands", "words"),
    [
        ((), [0, 0, 0], "band 1 alone"),
        ((3, 2, 1), [2, 1, 0], "bands 3, 2 and 1 as red, green and blue"),
        ((4,), [3, 3, 3], "band 4 alone"),
    ],
)
def test_the_bands_that_a_space_shows_are_seen(show, bands, words):
    space = Space(size_px=4, channels=4, range=(0, 10), show=show)
    assert as_rgb(IMAGES, space).equal(IMAGES[:, bands])
    assert seen_bands(space) == words


def test_a_colour_map_gives_its_end_colours_to_the_ends_of_the_range():
    space = Space(size_px=4, channels=4, range=(0, 10), show=(1,), colour_map="viridis")
    low = (as_rgb(IMAGES, space)[0, :, 0, 0] + 1) / 2
    high = (as_rgb(IMAGES.flip(1), space)[0, :, 0, 0] + 1) / 2
    assert low.tolist() == pytest.approx([0.267, 0.005, 0.329], abs=0.02)
    assert high.tolist() == pytest.approx([0.993, 0.906, 0.144], abs=0.02)


def test_one_band_has_a_scale_bar_and_three_have_none():
    sheet = Image.new("RGB", (120, 50))
    one = Space(size_px=4, channels=4, range=(0, 10), unit="HU", show=(2,))
    barred = with_scale_bar(sheet, one)
    assert barred.width == 120
    assert barred.height > 50
    ramp = np.asarray(barred)[55, :, 0].astype(int)
    assert (ramp[0], ramp[-1]) == (0, 255)
    assert (np.diff(ramp) >= 0).all()
    assert with_scale_bar(sheet, Space(size_px=4, channels=4, show=(3, 2, 1))) is sheet
    assert with_scale_bar(sheet, Space(size_px=4)) is sheet


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"show": (5,)}, "show must be one band or three, each from 1 to 4; got .5."),
        ({"show": (0,)}, "each from 1 to 4"),
        ({"show": (1, 2)}, "one band or three"),
        ({"show": (3, 2, 1), "channels": 1}, r"show must be \[1\]; got \[3, 2, 1\]"),
        ({"show": (1, 2, 3), "colour_map": "turbo"}, "colour_map 'turbo' is for one band"),
        ({"show": (1,), "colour_map": "rainbowish"}, "colour_map must be one of"),
    ],
)
def test_bands_that_cannot_be_shown_are_refused(values, words):
    with pytest.raises(ContractError, match=words):
        Space(**{"size_px": 4, "channels": 4, **values})


def test_the_look_of_a_space_is_saved_but_joins_with_any_other():
    from cascade.conditioning.low_resolution import LowResolution
    from cascade.contract import Contract

    small = Space(size_px=4, channels=4, range=(0, 10), show=(3, 2, 1))
    large = Contract(Space(size_px=8, channels=4, range=(0, 10)), (LowResolution(size_px=4),))
    large.check_follows(Contract(small), name="b", previous_name="a")
    assert Space(**small.to_dict()) == small
    assert "show" not in large.space.to_dict()
