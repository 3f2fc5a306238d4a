"""Spaces: sizes, ranges, and the numbers in between."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cascade.errors import ContractError
from cascade.resizing import quantise
from cascade.space import Space


def test_one_number_is_a_square_and_two_are_height_and_width():
    square, wide = Space(size_px=16), Space(size_px=(48, 80))
    assert (square.size, square.longer_px, square.size_text) == ((16, 16), 16, "16 px")
    assert (wide.size, wide.longer_px, wide.size_text) == ((48, 80), 80, "80x48 px")
    assert Space(size_px=(16, 16)) == square
    assert Space(size_px=[48, 80]) == wide  # as JSON gives it


@given(st.floats(-1000, 1000), st.floats(0.5, 2000), st.floats(0, 1))
def test_the_ends_of_the_range_are_minus_1_and_1_and_back(low, width, share):
    space = Space(size_px=1, range=(low, low + width))
    value = low + share * width
    numbers = torch.tensor([low, value, low + width], dtype=torch.float64)
    unit = space.to_unit(numbers)
    assert unit[0].item() == pytest.approx(-1, abs=1e-3)
    assert unit[2].item() == pytest.approx(1, abs=1e-3)
    assert unit[1].item() == pytest.approx(2 * share - 1, abs=1e-3)
    back = space.from_unit(unit)
    torch.testing.assert_close(back, numbers.float(), rtol=0, atol=1e-5 * (abs(low) + width + 1))


def test_images_are_rounded_to_the_whole_numbers_of_the_range():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    eight_bit = Space(size_px=8)
    assert eight_bit.levels == 256
    assert eight_bit.quantise(images).equal(quantise(images))
    wide = Space(size_px=8, range=(0, 10_000), unit="reflectance")
    assert wide.levels == 10_001
    numbers = wide.from_unit(wide.quantise(images))
    torch.testing.assert_close(numbers, wide.from_unit(images).round(), rtol=0, atol=2e-3)
    four = Space(size_px=8, range=(-1, 2))
    assert four.levels == 4
    assert four.from_unit(four.quantise(images)).unique().tolist() == pytest.approx([-1, 0, 1, 2])


@pytest.mark.parametrize(
    ("size", "smaller", "scale"),
    [(64, (16, 16), 4), (16, (16, 16), 1), ((48, 80), (12, 20), 4), ((48, 80), (48, 80), 1)],
)
def test_the_scale_is_a_whole_number_that_both_sides_share(size, smaller, scale):
    assert Space(size_px=size).scale_from(smaller) == scale


@pytest.mark.parametrize(
    ("size", "smaller", "words"),
    [
        (64, (24, 24), "64x64 px must be a whole multiple of 24x24 px"),
        (64, (128, 128), "64x64 px must be a whole multiple of 128x128 px"),
        ((48, 80), (12, 40), "80x48 px must be a whole multiple of 40x12 px"),
        ((48, 80), (20, 12), "80x48 px must be a whole multiple of 12x20 px"),
    ],
)
def test_sizes_without_a_whole_scale_are_refused(size, smaller, words):
    with pytest.raises(ContractError, match=words):
        Space(size_px=size).scale_from(smaller)


def test_a_resized_space_keeps_all_but_its_size_and_perhaps_its_channels():
    space = Space(size_px=(48, 80), channels=5, range=(0, 10_000), unit="reflectance")
    small = space.resized((12, 20))
    assert (small.size, small.channels, small.range, small.unit) == (
        (12, 20),
        5,
        (0.0, 10_000.0),
        "reflectance",
    )
    assert space.resized(8, channels=1) == Space(
        size_px=8, channels=1, range=(0, 10_000), unit="reflectance"
    )


def test_images_of_other_channels_are_refused_and_of_other_sizes_are_not():
    space = Space(size_px=(4, 6), channels=5)
    space.check(torch.zeros(2, 5, 8, 8))
    for shape in ((2, 3, 4, 6), (5, 4, 6)):
        with pytest.raises(ContractError, match=r"must be \(B, 5, H, W\), got"):
            space.check(torch.zeros(shape))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size_px": 0}, "at least 1 px a side and 1 channel, got 0x0 px"),
        ({"size_px": (4, 0)}, "got 0x4 px and 3 channels"),
        ({"size_px": 4, "channels": 0}, "got 4x4 px and 0 channels"),
        ({"size_px": 4, "range": (1, 1)}, r"the lower one first; got \(1, 1\)"),
        ({"size_px": 4, "range": (255, 0)}, r"the lower one first; got \(255, 0\)"),
        ({"size_px": 4, "range": (0, float("inf"))}, r"two finite numbers.*got \(0, inf\)"),
        ({"size_px": 4, "range": ((0, 1), (0, 2))}, "got 2 pairs for 3 channels"),
        ({"size_px": 4, "channels": 2, "range": ((0, 1), (2, 2))}, r"got \(2, 2\)"),
        ({"size_px": 4, "range": (float("nan"), 1)}, r"two finite numbers.*got \(nan, 1\)"),
    ],
)
def test_impossible_numbers_are_refused(values, words):
    with pytest.raises(ContractError, match=words) as error:
        Space(**values)
    assert "\n" not in str(error.value)


def test_each_channel_may_have_a_range_of_its_own():
    space = Space(size_px=2, channels=2, range=((0, 10), (-100, 100)))
    values = torch.tensor([0.0, 100.0])[:, None, None].expand(2, 2, 2)  # (C, H, W)
    unit = space.to_unit(values)
    assert unit[:, 0, 0].tolist() == [-1, 1]
    assert space.from_unit(unit).equal(values)
    assert space.to_unit(values[None])[0].equal(unit)
    assert space.levels == (11, 201)
    third = torch.full((2, 1, 1), 0.13)
    assert space.from_unit(space.quantise(third)).flatten().tolist() == pytest.approx([6, 13])


def test_equal_pairs_are_the_same_as_one_pair():
    space = Space(size_px=2, channels=4, range=((0, 10),) * 4)
    assert space == Space(size_px=2, channels=4, range=(0, 10))
    assert space.ranges == ((0, 10),) * 4


def test_only_three_channels_of_8_bits_are_colours():
    assert Space(size_px=2).is_colour
    assert not Space(size_px=2, range=(0, 1000)).is_colour
    assert not Space(size_px=2, channels=1).is_colour


@pytest.mark.parametrize(
    "space",
    [
        Space(size_px=8, channels=2, range=((0, 10), (-3.5, 3))),
        Space(size_px=16),
        Space(size_px=(48, 80), channels=5, range=(0, 10_000), unit="HU", resize_kernel="area"),
        Space(size_px=8, channels=4, kind="latents", range=(-1, 1)),
    ],
)
def test_json_round_trip(space):
    assert Space(**json.loads(json.dumps(space.to_dict()))) == space


@pytest.mark.parametrize("ends", [(0, 1), (0, 0.5), (-1.5, 3.2)])
def test_ranges_without_enough_whole_numbers_are_not_rounded_to(ends):
    with pytest.raises(ContractError, match="cannot be rounded to whole numbers of the range"):
        _ = Space(size_px=8, range=ends).levels
