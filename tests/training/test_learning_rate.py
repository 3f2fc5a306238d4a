from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cascade.training.learning_rate import learning_rate_factor, set_learning_rate
from cascade.training.settings import TrainingSettings

SETTINGS = TrainingSettings(images=1000, batch_size=10, warmup_images=100, decay_fraction=0.3)


def test_warm_up_plateau_and_cosine():
    factors = {
        images_seen: learning_rate_factor(images_seen, SETTINGS)
        for images_seen in range(0, 1000, 10)
    }
    for images_seen, factor in factors.items():
        if images_seen < 100:
            assert factor == pytest.approx((images_seen + 10) / 100)
        elif images_seen <= 700:
            assert factor == 1
        else:
            progress = (images_seen - 700) / 300
            assert factor == pytest.approx(0.5 * (1 + math.cos(math.pi * progress)))


@given(
    images=st.integers(1, 5000),
    batch_size=st.integers(1, 300),
    warmup=st.integers(0, 6000),
    decay=st.floats(0, 1),
)
def test_every_step_of_a_run_learns_and_none_learns_more_than_fully(
    images, batch_size, warmup, decay
):
    settings = TrainingSettings(
        images=images, batch_size=batch_size, warmup_images=warmup, decay_fraction=decay
    )
    factors = [
        learning_rate_factor(images_seen, settings) for images_seen in range(0, images, batch_size)
    ]
    assert all(0 < factor <= 1 for factor in factors)


def test_without_warm_up_and_decay_the_rate_is_full_throughout():
    flat = replace(SETTINGS, warmup_images=0, decay_fraction=0)
    assert {learning_rate_factor(images_seen, flat) for images_seen in range(0, 1000, 10)} == {1.0}


def test_the_rate_is_a_function_of_the_images_seen_alone():
    optimisers = [torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr) for lr in (3e-4, 0.02)]
    for optimiser in optimisers:
        optimiser.param_groups[0]["full_lr"] = optimiser.param_groups[0]["lr"]
    for images_seen in (500, 0, 990, 500):
        factor = set_learning_rate(optimisers, images_seen, SETTINGS)
        assert factor == learning_rate_factor(images_seen, SETTINGS)
        assert [group["lr"] for o in optimisers for group in o.param_groups] == [
            3e-4 * factor,
            0.02 * factor,
        ]


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_other_schedules_are_those_of_diffusers(name):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimiser, num_warmup_steps=0, num_training_steps=100)
    settings = replace(SETTINGS, warmup_images=0, schedule=name)
    for images_seen in range(0, 1000, 10):
        assert learning_rate_factor(images_seen, settings) == pytest.approx(
            scheduler.get_last_lr()[0]
        )
        optimiser.step()
        scheduler.step()


def test_every_schedule_warms_up():
    for name in ("warmup_stable_decay", "constant", "linear", "cosine"):
        settings = replace(SETTINGS, schedule=name)
        assert learning_rate_factor(0, settings) == pytest.approx(0.1)
