"""Enlarging: what it is measured by."""

from __future__ import annotations

import torch

from cascade.resizing import quantise, resize
from cascade.tasks.enlarging import low_res_error


def level(value: float) -> float:
    """A level of 255 in [-1, 1]."""
    return value / 127.5 - 1


def images(count: int = 2, side: int = 32, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return quantise(torch.rand(count, 3, side, side, generator=generator) * 2 - 1)


def test_results_are_rounded_to_8_bits_before_they_are_measured():
    truth = torch.full((1, 3, 16, 16), level(100))
    assert low_res_error(truth + 0.4 / 127.5, truth[..., :4, :4]).item() < 1e-6


def test_low_res_error_of_a_shift_is_its_square_for_each_image():
    low_res = torch.full((2, 3, 8, 8), level(100))
    results = torch.stack([torch.full((3, 32, 32), level(v)) for v in (100, 103)])
    torch.testing.assert_close(
        low_res_error(results, low_res), torch.tensor([0.0, 9.0]), rtol=1e-3, atol=1e-6
    )


def test_low_res_error_takes_the_antialiased_kernel():
    truth = images(1, 64)
    antialiased = resize(truth, (16, 16), "bicubic")
    assert low_res_error(truth, antialiased).item() < 1e-6
    assert low_res_error(truth, truth[..., ::4, ::4]).item() > 100
