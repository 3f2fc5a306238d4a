import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError, RecipeError

DIFFUSERS_NAMES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize(
    ("kind", "train_steps"), [("linear", 1000), ("cosine", 1000), ("cosine", 40)]
)
def test_tables_equal_diffusers(kind, train_steps, zero_terminal_snr):
    ours = NoiseSchedule(kind, train_steps=train_steps, zero_terminal_snr=zero_terminal_snr)
    theirs = DDIMScheduler(
        num_train_timesteps=train_steps,
        beta_schedule=DIFFUSERS_NAMES[kind],
        rescale_betas_zero_snr=zero_terminal_snr,
    )
    torch.testing.assert_close(ours.alpha_bar.float(), theirs.alphas_cumprod, rtol=1e-3, atol=2e-7)
    torch.testing.assert_close(ours.betas.float(), theirs.betas, rtol=1e-3, atol=5e-7)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("shift", [1.0, 0.25])
@pytest.mark.parametrize(
    ("kind", "train_steps"), [("linear", 12), ("linear", 250), ("cosine", 100)]
)
def test_diffusers_config_gives_diffusers_the_same_table(
    kind, train_steps, shift, zero_terminal_snr
):
    ours = NoiseSchedule(
        kind, train_steps=train_steps, shift=shift, zero_terminal_snr=zero_terminal_snr
    )
    theirs = DDIMScheduler(**ours.diffusers_config())
    torch.testing.assert_close(ours.alpha_bar.float(), theirs.alphas_cumprod, rtol=1e-3, atol=2e-7)


def test_table_is_exact_to_double_precision():
    alpha_bar = 1.0
    for i in range(1000):
        alpha_bar *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
    assert NoiseSchedule("linear").alpha_bar[-1].item() == pytest.approx(alpha_bar, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "train_steps"), [("linear", 10), ("cosine", 10), ("cosine", 1000)]
)
def test_largest_beta_is_clipped(kind, train_steps):
    betas = NoiseSchedule(kind, train_steps=train_steps).betas
    assert betas.max().item() == pytest.approx(0.999, abs=1e-9)
    assert betas.min() > 0


@given(st.floats(0.05, 2), st.sampled_from(["linear", "cosine"]))
def test_shift_multiplies_the_square_root_of_snr(shift, kind):
    plain, shifted = NoiseSchedule(kind), NoiseSchedule(kind, shift=shift)
    difference = shifted.log_alpha_sigma - plain.log_alpha_sigma
    torch.testing.assert_close(difference, torch.full_like(difference, math.log(shift)))


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_start():
    plain, zero = NoiseSchedule("linear"), NoiseSchedule("linear", zero_terminal_snr=True)
    assert zero.alpha_bar[-1] == 0
    assert zero.log_alpha_sigma[-1] == -math.inf
    assert zero.alpha_bar[0].item() == pytest.approx(plain.alpha_bar[0].item())
    assert (zero.alpha_bar.diff() < 0).all()


def test_scales_and_noise_of_each_image_follow_its_own_timestep():
    schedule = NoiseSchedule("linear")
    t = torch.tensor([0, 500, 999])
    x0, eps = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule.alpha_sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3, 1, 1, 1))
    torch.testing.assert_close(schedule.snr(t), alpha**2 / sigma**2, rtol=1e-4, atol=0)
    theirs = DDIMScheduler().add_noise(x0, eps, t)
    torch.testing.assert_close(schedule.add_noise(x0, eps, t), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train_steps", [2, 37, 250, 1000])
def test_every_number_of_steps_gives_that_many_from_the_last_one(train_steps):
    schedule = NoiseSchedule(train_steps=train_steps)
    for steps in range(1, train_steps + 1):
        timesteps = schedule.sampling_timesteps(steps)
        assert len(timesteps) == steps
        assert timesteps[0] == train_steps - 1
        assert timesteps[-1] >= 0
        assert all(t > t_prev for t, t_prev in pairwise(timesteps))


@pytest.mark.parametrize("steps", [1, 7, 30, 50, 333, 999, 1000])
def test_spacing_equals_the_trailing_one_of_diffusers(steps):
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert NoiseSchedule().sampling_timesteps(steps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("timestep_shift", [0.001, 0.5, 3.0, 1000.0])
@pytest.mark.parametrize("train_steps", [2, 37, 250])
def test_shifted_timesteps_are_as_many_different_ones(train_steps, timestep_shift):
    schedule = NoiseSchedule(train_steps=train_steps)
    for steps in range(1, train_steps + 1):
        timesteps = schedule.sampling_timesteps(steps, timestep_shift)
        assert len(timesteps) == steps
        assert timesteps[0] == train_steps - 1
        assert timesteps[-1] >= 0
        assert all(t > t_prev for t, t_prev in pairwise(timesteps))


@pytest.mark.parametrize("timestep_shift", [0.5, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 30])
def test_the_shift_is_that_of_diffusers_for_flow_matching(steps, timestep_shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=timestep_shift)
    theirs.set_timesteps(sigmas=[(steps - i) / steps for i in range(steps)])  # shifts them
    ours = NoiseSchedule().sampling_timesteps(steps, timestep_shift)
    assert ours == [round(float(t)) - 1 for t in theirs.timesteps]


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(ContractError, match=f"from 1 to 100.*got {steps}"):
        NoiseSchedule(train_steps=100).sampling_timesteps(steps)


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "sigmoid"},
        {"train_steps": 1},
        {"shift": 0.0},
        {"shift": -1.0},
        {"shift": math.nan},
        {"shift": math.inf},
    ],
)
def test_impossible_schedules_are_refused(values):
    with pytest.raises(RecipeError, match=str(next(iter(values.values())))):
        NoiseSchedule(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"train_steps": 2.5}, r"train_steps must be a whole number, got 2\.5"),
        ({"train_steps": "many"}, "train_steps must be a whole number, got 'many'"),
        ({"shift": "0.5"}, r"shift must be a number, got '0\.5'"),
        ({"zero_terminal_snr": "no"}, "zero_terminal_snr must be True or False, got 'no'"),
        ({"kind": "betas", "betas": ["a"]}, r"betas must be a list of numbers, got \['a'\]"),
        ({"betas": 3}, "betas must be a list of numbers, got 3"),
    ],
)
def test_what_is_no_number_is_refused(values, words):
    with pytest.raises(ContractError, match=words):
        NoiseSchedule(**values)


def test_betas_may_be_an_array():
    betas = np.array([0.1, 0.2])
    schedule = NoiseSchedule("betas", train_steps=2, betas=betas)
    assert schedule.alpha_bar.tolist() == pytest.approx([0.9, 0.72])
