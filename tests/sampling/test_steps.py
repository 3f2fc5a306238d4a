import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from cascade.diffusion.schedule import NoiseSchedule
from cascade.sampling.steps import ddim_step, ddpm_step

SCHEDULE = NoiseSchedule("linear", train_steps=100)
ONE = torch.ones(1, 1, 1, 1, dtype=torch.float64)
ZERO = torch.zeros_like(ONE)


@st.composite
def pairs(draw):
    """(t, t_prev) with 0 <= t_prev < t."""
    t = draw(st.integers(1, 99))
    return t, draw(st.integers(0, t - 1))


def marginal(t):
    """Scale of the image and variance of the noise at t."""
    alpha_bar = SCHEDULE.alpha_bar[t].item()
    return math.sqrt(alpha_bar), 1 - alpha_bar


@given(pairs())
def test_ddpm_step_keeps_the_marginals(pair):
    """x_t ~ q(x_t | x0) gives x_prev ~ q(x_prev | x0), for any stride."""
    t, t_prev = pair
    from_x0 = ddpm_step(SCHEDULE, ZERO, ONE, t, t_prev, ZERO).item()
    from_x_t = ddpm_step(SCHEDULE, ONE, ZERO, t, t_prev, ZERO).item()
    from_noise = ddpm_step(SCHEDULE, ZERO, ZERO, t, t_prev, ONE).item()
    alpha, variance = marginal(t)
    alpha_prev, variance_prev = marginal(t_prev)
    assert from_x0 + from_x_t * alpha == pytest.approx(alpha_prev, rel=1e-9)
    assert from_x_t**2 * variance + from_noise**2 == pytest.approx(variance_prev, rel=1e-9)


@given(pairs(), st.floats(0, 1))
def test_ddim_step_keeps_the_marginals_for_every_eta(pair, eta):
    t, t_prev = pair
    from_x0 = ddim_step(SCHEDULE, ONE, ZERO, t, t_prev, ZERO, eta=eta).item()
    from_eps = ddim_step(SCHEDULE, ZERO, ONE, t, t_prev, ZERO, eta=eta).item()
    from_noise = ddim_step(SCHEDULE, ZERO, ZERO, t, t_prev, ONE, eta=eta).item()
    alpha_prev, variance_prev = marginal(t_prev)
    assert from_x0 == pytest.approx(alpha_prev, rel=1e-9)
    assert from_eps**2 + from_noise**2 == pytest.approx(variance_prev, rel=1e-9)


@given(pairs(), st.floats(-2, 2), st.floats(-1, 1), st.floats(-2, 2))
def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance(pair, x_t, x0, noise):
    t, t_prev = pair
    alpha, variance = marginal(t)
    eps = (x_t - alpha * x0) / math.sqrt(variance)
    ddim = ddim_step(SCHEDULE, x0 * ONE, eps * ONE, t, t_prev, noise * ONE, eta=1.0)
    ddpm = ddpm_step(SCHEDULE, x_t * ONE, x0 * ONE, t, t_prev, noise * ONE)
    torch.testing.assert_close(ddim, ddpm)


@given(pairs(), st.floats(1, 1e3))
def test_ddim_keeps_the_marginals_where_a_large_eta_leaves_no_room_for_more_noise(pair, eta):
    t, t_prev = pair
    from_eps = ddim_step(SCHEDULE, ZERO, ONE, t, t_prev, ZERO, eta=eta).item()
    from_noise = ddim_step(SCHEDULE, ZERO, ZERO, t, t_prev, ONE, eta=eta).item()
    assert from_eps**2 + from_noise**2 == pytest.approx(marginal(t_prev)[1], rel=1e-9)


def test_beyond_some_eta_all_of_the_noise_is_fresh():
    for eta in (10.0, 1000.0):
        assert ddim_step(SCHEDULE, ZERO, ONE, 50, 40, ZERO, eta=eta).item() == 0


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize(("steps", "index"), [(100, 0), (100, 60), (20, 3), (7, 0), (7, 4)])
def test_ddpm_step_equals_diffusers(variance, steps, index):
    theirs = DDPMScheduler(
        prediction_type="sample",
        variance_type=f"fixed_{variance}",
        clip_sample=False,
        timestep_spacing="trailing",
        **SCHEDULE.diffusers_config(),
    )
    theirs.set_timesteps(steps)
    t, t_prev = theirs.timesteps[index : index + 2].tolist()
    x_t, x0 = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = theirs.step(x0, t, x_t, generator=torch.Generator().manual_seed(1)).prev_sample
    ours = ddpm_step(SCHEDULE, x_t, x0, t, t_prev, noise, variance=variance)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [0, 13, 99])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_last_step_is_x0_exactly_at_any_timestep(t, variance):
    x0, x_t, noise = torch.randn(3, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert ddpm_step(SCHEDULE, x_t, x0, t, -1, noise, variance=variance).equal(x0)
    assert ddpm_step(SCHEDULE, x_t, x0, t, -1, noise, learned=noise).equal(x0)
    assert ddim_step(SCHEDULE, x0, x_t, t, -1, noise, eta=1.0).equal(x0)


def test_learned_variance_goes_from_the_posterior_to_beta():
    noise = torch.ones(1, 1, 1, 1)
    for fraction, variance in ((-1.0, "small"), (1.0, "large")):
        fixed = ddpm_step(SCHEDULE, 0 * noise, 0 * noise, 60, 50, noise, variance=variance)
        learned = ddpm_step(SCHEDULE, 0 * noise, 0 * noise, 60, 50, noise, learned=fraction * noise)
        torch.testing.assert_close(learned, fixed)
