"""The shift between two images, against shifts that are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
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


def paper(seed: int) -> Tensor:
    """Grain of paper (1, SIDE, SIDE): smooth noise, of a standard deviation of 0.2."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, SIDE, SIDE, generator=draw)
    return F.avg_pool2d(noise, 5, stride=1, padding=2, count_include_pad=False)[0]


def test_grain_on_a_smooth_image_is_no_shift_but_a_larger_error():
    smooth = F.avg_pool2d(F.pad(waves()[None], (9,) * 4, mode="reflect"), 19, stride=1)[0]
    measured = [measured_shift(smooth, smooth + smooth.std() * paper(seed)) for seed in range(20)]
    assert any(each.is_certain and each.distance_px > 0.5 for each in measured)
    assert not any(each.is_beyond(0.5) for each in measured)


def test_errors_are_as_large_as_said():
    misses, errors = [], []
    for seed in range(40):
        measured = measured_shift(waves(1.0, 0.0), waves() + 2 * waves().std() * paper(seed))
        misses += [measured.x_px - 1, measured.y_px]
        xx, _, yy = measured.covariance_px2
        errors += [math.sqrt(xx), math.sqrt(yy)]
    ratio = torch.tensor(misses).std() / torch.tensor(errors).square().mean().sqrt()
    assert 0.5 < float(ratio) < 2


def test_a_shift_that_is_plain_to_see_is_beyond_the_limit():
    assert measured_shift(waves(1.0, 0.0), waves()).is_beyond(0.5)
    assert not measured_shift(waves(0.3, 0.0), waves()).is_beyond(0.5)


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
