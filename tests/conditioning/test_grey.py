import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cascade.conditioning.luminance import impose_luminance, luminance
from cascade.resizing import quantise
from cascade.errors import ContractError
from cascade.imaging.writing import from_uint8

byte = st.integers(0, 255)
unit = st.floats(-1, 1, width=32)
STEP = 2 / 255  # of an 8-bit file


def colour(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


@given(st.tuples(byte, byte, byte))
def test_luminance_is_what_pillow_makes_of_a_colour_picture(pixel):  # trap 35
    picture = Image.fromarray(np.array(pixel, dtype=np.uint8).reshape(1, 1, 3))
    ours = luminance(from_uint8(torch.tensor(pixel, dtype=torch.uint8).view(1, 3, 1, 1)))
    theirs = np.array(picture.convert("L")).item() / 127.5 - 1
    assert ours.item() == pytest.approx(theirs, abs=0.51 * STEP)


@given(byte)
def test_a_grey_picture_is_its_own_luminance_as_one_channel_or_three(value):
    grey = from_uint8(torch.full((1, 1, 1, 1), value, dtype=torch.uint8))
    assert luminance(grey).equal(grey)
    assert quantise(luminance(grey.expand(1, 3, 1, 1))).equal(quantise(grey))


@given(st.tuples(unit, unit, unit), unit)
def test_imposed_luminance_is_the_given_one_and_in_range(pixel, grey):
    wanted = torch.full((1, 1, 1, 1), grey)
    result = impose_luminance(colour(pixel), wanted)
    assert result.abs().max() <= 1
    torch.testing.assert_close(luminance(result), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(luminance(quantise(result)), wanted, rtol=0, atol=0.51 * STEP)


@given(st.tuples(unit, unit, unit), unit)
def test_colour_differences_stay_or_are_all_lessened_alike_and_no_more_than_must_be(pixel, grey):
    image, wanted = colour(pixel), torch.full((1, 1, 1, 1), grey)
    result = impose_luminance(image, wanted)
    before, after = image - luminance(image), result - wanted
    largest = before.abs().max()
    share = (after.abs().max() / largest).item() if largest > 1e-3 else 1.0
    torch.testing.assert_close(after, share * before, rtol=0, atol=1e-3)
    if share < 0.999:  # something was in the way
        assert result.abs().max() == pytest.approx(1, abs=1e-3)


@given(st.tuples(unit, unit, unit))
def test_an_image_that_has_the_luminance_stays_as_it_is(pixel):
    image = colour(pixel)
    torch.testing.assert_close(impose_luminance(image, luminance(image)), image, rtol=0, atol=1e-5)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match="1 or 3 channels"):
        luminance(torch.zeros(1, 4, 8, 8))
    for images, grey in (((1, 3, 8, 8), (1, 1, 8, 9)), ((1, 1, 8, 8), (1, 1, 8, 8))):
        with pytest.raises(ContractError, match="must go together"):
            impose_luminance(torch.zeros(images), torch.zeros(grey))
