"""Metrics of single images against closed forms and against torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch

from cascade.resizing import quantise
from cascade.tasks.image_metrics import colourfulness, psnr, ssim


def level(value: float) -> float:
    """A level of 255 in [-1, 1]."""
    return value / 127.5 - 1


def images(count: int = 2, side: int = 32, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return quantise(torch.rand(count, 3, side, side, generator=generator) * 2 - 1)


# Against the truth


def test_psnr_of_an_even_error_is_the_closed_form_for_each_image():
    truth = torch.full((2, 3, 16, 16), level(100))
    results = torch.stack([torch.full((3, 16, 16), level(v)) for v in (105, 110)])
    expected = torch.tensor([20 * math.log10(255 / 5), 20 * math.log10(255 / 10)])
    torch.testing.assert_close(psnr(results, truth), expected, rtol=1e-4, atol=0)


def test_results_are_rounded_to_8_bits_before_they_are_measured():
    truth = torch.full((1, 3, 16, 16), level(100))
    assert psnr(truth + 0.4 / 127.5, truth).isinf().all()


def test_psnr_equals_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.image")
    first, second = images(seed=0), images(seed=1)
    expected = functional.peak_signal_noise_ratio(
        first, second, data_range=2.0, reduction="none", dim=(1, 2, 3)
    )
    torch.testing.assert_close(psnr(first, second), expected)


def test_ssim_is_one_for_the_same_image_and_is_given_for_each():
    pytest.importorskip("torchmetrics")
    truth = images()
    results = torch.stack([truth[0], -truth[1]])
    same, inverted = ssim(results, truth).tolist()
    assert same == pytest.approx(1)
    assert inverted < 0


def test_ssim_of_flat_images_is_the_closed_form():
    # Without any variance only the luminance term is left: (2ab + c) / (a² + b² + c).
    pytest.importorskip("torchmetrics")
    a, b, c = 100, 150, (0.01 * 255) ** 2
    first, second = (torch.full((1, 3, 16, 16), level(v)) for v in (a, b))
    expected = (2 * a * b + c) / (a * a + b * b + c)
    assert ssim(first, second).item() == pytest.approx(expected, rel=1e-3)


# Colour


def test_grey_has_no_colour():
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(colourfulness(grey), torch.zeros(2))


def test_colourfulness_is_the_published_formula():
    # Half red, half blue: rg is 255 and 0, yb is 127.5 and -255.
    image = torch.full((1, 3, 8, 8), -1.0)
    image[:, 0, :4], image[:, 2, 4:] = 1.0, 1.0
    spread = math.hypot(127.5, (127.5 + 255) / 2)
    mean = math.hypot(127.5, (127.5 - 255) / 2)
    assert colourfulness(image).item() == pytest.approx(spread + 0.3 * mean, rel=1e-5)
