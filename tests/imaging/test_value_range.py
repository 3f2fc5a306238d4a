"""Pictures that use a part of their numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cascade.errors import DataError
from cascade.imaging.picture import Picture
from cascade.imaging.value_range import (
    common_range,
    is_narrow,
    outside_share,
    stretched,
    unstretched,
    used_range,
    worked_on_stretched,
)


def deep(values, alpha=None) -> Picture:
    colour = torch.from_numpy(np.asarray(values, np.uint16)).reshape(1, 1, -1)
    mask = None if alpha is None else torch.tensor(alpha, dtype=torch.uint16).reshape(1, 1, -1)
    return Picture(colour=colour, alpha=mask, bits=16)


def test_the_used_range_is_that_of_visible_pixels():
    assert used_range(deep([840, 1000, 1177])) == (840, 1177)
    assert used_range(deep([0, 840, 1177, 65535], [0, 1, 9, 0])) == (840, 1177)
    assert used_range(deep([5, 6], [0, 0])) == (5, 6)


def test_hot_and_dead_pixels_do_not_count_as_common():
    values = np.linspace(840, 1177, 10_000).round()
    values[[7, 70]] = 0, 65535
    low, high = common_range(deep(values))
    assert 840 <= low <= 845
    assert 1172 <= high <= 1177
    assert used_range(deep(values)) == (0, 65535)
    assert common_range(deep([9, 9, 9])) == (9, 9)
    assert common_range(deep([0, 65535])) == (0, 65535)


@pytest.mark.parametrize(
    ("low", "high", "bits", "narrow"),
    [
        (840, 1177, 16, True),
        (0, 4095, 16, True),  # 12 bits
        (0, 16383, 16, True),  # 14 bits
        (0, 65535, 16, False),
        (0, 40000, 16, False),
        (7, 7, 16, False),
        (0, 30, 8, True),
        (60, 200, 8, False),
    ],
)
def test_a_small_part_of_the_numbers_is_narrow(low, high, bits, narrow):
    assert is_narrow(low, high, bits) == narrow


@pytest.mark.parametrize(("bits", "low", "high"), [(16, 840, 1177), (16, 0, 65535), (8, 3, 77)])
def test_stretching_fills_the_range_and_can_be_undone_exactly(bits, low, high):
    dtype = {8: torch.uint8, 16: torch.uint16}[bits]
    numbers = torch.arange(low, high + 1).to(dtype).reshape(1, 1, -1).expand(3, -1, -1)
    alpha = torch.full((1, 1, high - low + 1), 7, dtype=dtype)
    picture = Picture(colour=numbers, alpha=alpha, bits=bits, dpi=(300.0, 300.0))
    wide = stretched(picture, low, high)
    assert used_range(wide) == (0, 2**bits - 1)
    assert bool((wide.colour[0, 0].int().diff() >= 1).all())  # no two numbers become one
    back = unstretched(wide, low, high)
    assert back.colour.equal(picture.colour)
    assert back.alpha is not None
    assert back.alpha.equal(alpha)
    assert back.dpi == (300.0, 300.0)


def test_numbers_outside_are_clipped_and_counted():
    picture = deep([0, 839, 840, 1177, 1178, 65535, 1000, 1001])
    assert stretched(picture, 840, 1177).colour.flatten().tolist()[:6] == [0, 0, 0] + [65535] * 3
    assert outside_share(picture, 840, 1177) == 0.5


@pytest.mark.parametrize("ends", [(0, 256), (-1, 5), (5, 5), (9, 3)])
def test_a_range_that_8_bits_do_not_have_is_refused(ends):
    picture = Picture(colour=torch.zeros(1, 2, 2, dtype=torch.uint8))
    for change in (stretched, unstretched):
        with pytest.raises(DataError, match="does not fit an image of 8 bits"):
            change(picture, *ends)


def test_work_on_a_part_of_the_numbers_gives_results_in_it():
    picture, inputs = deep([840, 1000, 1177]), []

    def work(pictures):
        inputs.extend(used_range(each) for each in pictures)
        return pictures

    assert worked_on_stretched([picture], (840, 1177), work)[0].colour.equal(picture.colour)
    assert worked_on_stretched([picture], None, work)[0] is picture
    assert inputs == [(0, 65535), (840, 1177)]
