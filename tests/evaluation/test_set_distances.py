"""Distances of sets against closed forms and torchmetrics, and what their intervals hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cascade.errors import ContractError
from cascade.evaluation import set_distances
from cascade.evaluation.set_distances import (
    frechet_distance,
    frechet_estimate,
    kernel_estimate,
    warn_of_few,
)


def gaussian(
    count: int, mean: float, seed: int, features: int = 4, *, std: float = 1
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, features, generator=generator, dtype=torch.float64)


def test_kid_over_all_pairs_equals_torchmetrics_with_one_subset_of_all():
    kid = pytest.importorskip("torchmetrics.image.kid")
    samples, truth = gaussian(30, 0, 0), gaussian(30, 0.5, 1)
    metric = kid.KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=30)
    metric.update(truth, real=True)
    metric.update(samples, real=False)
    expected = 1000 * float(metric.compute()[0])
    estimate = kernel_estimate(samples, truth)
    assert estimate.value == pytest.approx(expected, rel=1e-5)
    assert estimate.low < estimate.value < estimate.high


def test_kid_of_two_points_is_the_closed_form_and_certain():
    x, y = torch.full((6, 1), 1.0), torch.full((9, 1), 2.0)
    expected = 1000 * ((1 + 1) ** 3 + (4 + 1) ** 3 - 2 * (2 + 1) ** 3)
    assert kernel_estimate(x, y) == pytest.approx((expected,) * 3)


def test_the_interval_of_kid_holds_the_truth_about_as_often_as_it_says():
    # KID of equal distributions is 0; where they differ it is what many more images give.
    true = kernel_estimate(gaussian(1500, 0, 0), gaussian(1500, 1, 1), drawings=2).value
    hits = []
    for seed in range(60):
        estimate = kernel_estimate(
            gaussian(40, 0, 2 * seed + 10), gaussian(40, 1, 2 * seed + 11), drawings=200
        )
        hits.append(estimate.low <= true <= estimate.high)
    assert 0.85 <= sum(hits) / len(hits) <= 1.0


def test_the_spread_of_the_frechet_distance_is_that_of_other_images():
    others = [
        frechet_distance(gaussian(60, 0, 2 * s + 10), gaussian(60, 1, 2 * s + 11))
        for s in range(60)
    ]
    spread = torch.tensor(others).std().item()
    estimate = frechet_estimate(gaussian(60, 0, 0), gaussian(60, 1, 1), drawings=100)
    assert (estimate.high - estimate.low) / (2 * 1.96) == pytest.approx(spread, rel=0.5)
    assert estimate.value == frechet_distance(gaussian(60, 0, 0), gaussian(60, 1, 1))


def test_pairs_may_be_summed_some_at_a_time(monkeypatch):
    sets = gaussian(20, 0, 0), gaussian(31, 1, 1)
    whole = kernel_estimate(*sets, drawings=5)
    monkeypatch.setattr(set_distances, "ROWS_AT_A_TIME", 7)
    assert kernel_estimate(*sets, drawings=5) == pytest.approx(whole)


def test_a_frechet_distance_is_never_below_zero():
    few = gaussian(3, 0, 0)
    estimate = frechet_estimate(few, 1.1 * few + 0.1)
    assert 0 == estimate.low < estimate.value < estimate.high


def test_the_same_seed_gives_the_same_interval():
    sets = gaussian(20, 0, 0), gaussian(20, 1, 1)
    assert frechet_estimate(*sets, drawings=5) == frechet_estimate(*sets, drawings=5)
    assert kernel_estimate(*sets, seed=1) != kernel_estimate(*sets, seed=2)


def test_few_images_are_warned_of():
    assert warn_of_few(2000, 1280) == []
    (high,) = warn_of_few(500, 1280)
    assert "there are only 500 images for 1280 features" in high
    assert len(warn_of_few(40, 1280)) == 2


def test_one_image_is_refused():
    with pytest.raises(ContractError, match="at least 2 images in each set, got 1"):
        kernel_estimate(torch.zeros(1, 4), torch.zeros(5, 4))
    with pytest.raises(ContractError, match="at least 2 images in each set, got 1"):
        frechet_estimate(torch.zeros(1, 4), torch.zeros(5, 4))


def test_kid_is_not_biased_by_few_images():
    # Over many draws its mean is 0 for equal distributions; a biased one is always above.
    values = np.array(
        [
            kernel_estimate(
                gaussian(8, 0, 2 * seed), gaussian(8, 0, 2 * seed + 1), drawings=2
            ).value
            for seed in range(200)
        ]
    )
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    assert (values < 0).sum() > 20


def test_intervals_leave_the_global_generator_alone():
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    sets = gaussian(20, 0, 0), gaussian(20, 1, 1)
    kernel_estimate(*sets, drawings=5)
    frechet_estimate(*sets, drawings=5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_frechet_distance_of_shifted_and_scaled_sets_is_the_closed_form():
    features = gaussian(50, 0, 0)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + 3) == pytest.approx(4 * 9)
    scaled = features.mean(dim=0) + 2 * (features - features.mean(dim=0))
    variance = features.var(dim=0).sum().item()
    assert frechet_distance(features, scaled) == pytest.approx(variance)


def test_frechet_distance_equals_torchmetrics_on_the_same_features():
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Given(nn.Identity):
        num_features = 4

    first, second = gaussian(60, 0, 0), gaussian(60, 0.5, 1, std=2)
    metric = fid.FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    metric.update(second, real=True)
    metric.update(first, real=False)
    assert frechet_distance(first, second) == pytest.approx(float(metric.compute()), rel=1e-5)


def test_frechet_distance_is_the_same_with_more_images_than_features_and_with_fewer():
    # Features padded with zeros change nothing, but which of N and F is larger.
    first, second = gaussian(30, 0, 0), gaussian(25, 0.5, 1, std=2)
    padded = [torch.cat([f, torch.zeros(len(f), 60).double()], dim=1) for f in (first, second)]
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(*padded))
