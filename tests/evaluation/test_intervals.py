"""Intervals of means."""

from __future__ import annotations

import math

import pytest
import torch

from cascade.evaluation.intervals import mean_estimate


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
