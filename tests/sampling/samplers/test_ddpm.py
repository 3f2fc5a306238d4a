"""DDPM against diffusers, and against the closed form where the data are Gaussian."""

import pytest
import torch
from diffusers import DDPMScheduler

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError
from cascade.sampling.samplers.table import make_sampler

DIFFUSERS_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [100, 25, 7])
def test_the_trajectory_equals_diffusers(process, some_network, steps, variance, prediction):
    process = NoiseProcess(process.schedule, prediction=prediction)
    theirs = DDPMScheduler(
        prediction_type=DIFFUSERS_NAMES[prediction],
        variance_type=f"fixed_{variance}",
        timestep_spacing="trailing",
        **process.schedule.diffusers_config(),
    )
    theirs.set_timesteps(steps)
    noise, same_noise = SeededNoise([0, 1]), SeededNoise([0, 1])
    state, expected = noise.normal(3, 4, 4), same_noise.normal(3, 4, 4)
    sampler = make_sampler("ddpm", process, steps, variance=variance)
    for index, t in enumerate(theirs.timesteps):
        batch_t = t.expand(2)
        state, x0 = sampler.step(some_network(state, batch_t), state, index, noise)
        moved = theirs.step(
            some_network(expected, batch_t), t, expected, generator=same_noise.generators
        )
        torch.testing.assert_close(x0, moved.pred_original_sample, rtol=1e-3, atol=1e-3)
        expected = moved.prev_sample
        if index < steps - 1:  # diffusers adds noise in its last step unless that is timestep 0
            torch.testing.assert_close(state, expected, rtol=1e-3, atol=1e-3)
    assert state.equal(x0)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 30, 100])
def test_samples_have_the_mean_and_variance_of_the_closed_form(
    process, gaussian, run, unit_draws, steps, variance
):
    sampler = make_sampler("ddpm", process, steps, threshold="none", variance=variance)
    noise = unit_draws(images=steps + 1)
    images, _ = run(sampler, gaussian.denoiser(process), noise.normal(1, 1, 1), noise)
    mean = images[0].item()
    spread = (images[1:] - mean).square().sum().item()
    expected_mean, expected_spread = 0.0, 1.0
    for alpha, sigma2, v, alpha_prev, sigma2_prev, v_prev in gaussian.scales(
        process.schedule, sampler.timesteps
    ):
        slope = alpha / alpha_prev * v_prev / v  # of E[x_prev | x_t]
        expected_mean = alpha_prev * gaussian.mean + slope * (expected_mean - alpha * gaussian.mean)
        beta = 1 - alpha**2 / alpha_prev**2
        fresh = beta * (sigma2_prev / sigma2 if variance == "small" else 1.0)
        expected_spread = slope**2 * expected_spread + (fresh if sigma2_prev > 0 else 0.0)
    assert mean == pytest.approx(expected_mean, abs=1e-4)
    assert spread == pytest.approx(expected_spread, rel=1e-3, abs=1e-6)


def test_many_steps_reach_the_distribution_of_the_data(fine_process, gaussian, run, unit_draws):
    sampler = make_sampler("ddpm", fine_process, 500, threshold="none")
    noise = unit_draws(images=501)
    images, _ = run(sampler, gaussian.denoiser(fine_process), noise.normal(1, 1, 1), noise)
    assert images[0].item() == pytest.approx(gaussian.mean, abs=0.002)
    spread = (images[1:] - images[0]).square().sum().sqrt().item()
    assert spread == pytest.approx(gaussian.std, rel=0.02)


def test_no_noise_is_drawn_in_the_last_step(process, some_network, run, unit_draws):
    noise = unit_draws(images=11)
    run(make_sampler("ddpm", process, 10), some_network, noise.normal(1, 1, 1), noise)
    assert noise.draws == 10  # the start and nine steps


@pytest.mark.parametrize("variance", ["medium", None, 1])
def test_unknown_variances_are_refused(process, variance):
    with pytest.raises(ContractError, match=r"variance must be one of \('small', 'large'\), got"):
        make_sampler("ddpm", process, 5, variance=variance)
