"""Intervals of means."""

from __future__ import annotations

import math

import pytest
import torch

from cascade.evaluation.intervals import mean_estimate, mean_interval


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    draw = torch.Generator().manual_seed(0)
    values = 3 + torch.randn(400, generator=draw, dtype=torch.float64)
    estimate = mean_estimate(values.tolist())
    assert estimate.value == pytest.approx(float(values.mean()))
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.15)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.15)


def test_the_interval_of_a_share_is_inside_0_and_1():
    estimate = mean_estimate([1.0] * 19 + [0.0])
    assert 0.8 < estimate.low < estimate.value < estimate.high <= 1
    assert mean_estimate([1.0] * 9) == (1.0, 1.0, 1.0)


def test_images_of_one_file_count_as_one_drawing():
    """Ten files of forty equal values tell as much about the mean as ten values."""
    draw = torch.Generator().manual_seed(0)
    each = torch.randn(10, generator=draw, dtype=torch.float64)
    values = each.repeat_interleave(40).tolist()
    files = [str(number // 40) for number in range(400)]
    assert mean_estimate(values, files=files) == pytest.approx(mean_estimate(each.tolist()))
    alone = mean_estimate(values)
    assert alone.high - alone.low < 0.3 * (mean_interval(values, files)[1] - each.mean()) * 2
    assert mean_interval(values[:40], files) == (None, None)


def test_files_count_by_their_images():
    values, files = [1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]
    estimate = mean_estimate(values, files=files, drawings=2000)
    assert estimate.value == 2
    means = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)  # of (a, a), (a, b), (b, b)
    middle = float(means @ torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64))
    assert estimate.low == 1
    assert estimate.high == pytest.approx(2 + 5 - middle, abs=0.1)
