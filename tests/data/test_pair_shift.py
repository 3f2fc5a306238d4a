"""The shift between two images, against shifts that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cascade.data.pair_shift import measured_shift

SIDE = 64


def waves(x_px: float = 0.0, y_px: float = 0.0, side: int = SIDE, finest: float = 0.6) -> Tensor:
    """A sum of waves (1, side, side), moved by any number of pixels: it is exact between them.

    Args:
        x_px: shift to the right.
        y_px: shift downwards.
        side: side of the image in pixels.
        finest: twice the highest frequency, in cycles per pixel.
    """
    draw = torch.Generator().manual_seed(0)
    rows = torch.arange(side, dtype=torch.float64)[:, None] - y_px
    columns = torch.arange(side, dtype=torch.float64)[None] - x_px
    image = torch.zeros(side, side, dtype=torch.float64)
    for _ in range(120):
        down, right, phase = (torch.rand(3, generator=draw) - 0.5).tolist()
        angle = 2 * math.pi * (finest * (down * rows + right * columns) + phase)
        image += torch.cos(angle) / (0.05 + math.hypot(down, right))
    return image[None].float() / 20


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.25, -0.5), (1.4, 2.7), (-3.2, 0.1)])
def test_known_shifts_are_found_to_less_than_a_tenth_of_a_pixel(shift):
    measured = measured_shift(waves(*shift), waves())
    assert measured.is_certain
    assert (measured.x_px, measured.y_px) == pytest.approx(shift, abs=0.08)


@pytest.mark.parametrize(
    "change", [lambda x: -x, lambda x: 0.3 * x + 5, lambda x: x.repeat(3, 1, 1)]
)
def test_neither_contrast_nor_the_number_of_bands_matters(change):
    measured = measured_shift(change(waves(0.6, -0.4)), waves())
    assert (measured.x_px, measured.y_px) == pytest.approx((0.6, -0.4), abs=0.06)


def test_noise_moves_it_little():
    noise = torch.randn(1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    measured = measured_shift(waves(1.0, 0.0), waves() + 0.5 * waves().std() * noise)
    assert measured.is_certain
    assert (measured.x_px, measured.y_px) == pytest.approx((1.0, 0.0), abs=0.15)


def test_a_small_image_of_every_fourth_pixel_lies_three_eighths_of_a_pixel_off():
    """The mean of four pixels lies at their middle, (4 - 1) / 2 pixels after the first of them."""
    large = waves(side=4 * SIDE, finest=0.15)  # so that the small image holds every frequency
    measured = measured_shift(large, large[:, ::4, ::4])
    assert (measured.x_px, measured.y_px) == pytest.approx((-0.375, -0.375), abs=0.08)


def test_what_has_nothing_in_common_is_not_certain():
    draw = torch.Generator().manual_seed(2)
    for _ in range(5):
        first, second = torch.randn(2, 3, SIDE, SIDE, generator=draw)
        assert not measured_shift(first, second).is_certain
    flat = torch.zeros(1, SIDE, SIDE)
    assert not measured_shift(flat, flat).is_certain
    assert not measured_shift(flat, waves()).is_certain
    assert not measured_shift(waves(side=16), waves(side=16)).is_certain  # too small to tell
