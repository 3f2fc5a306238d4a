"""DDIM against diffusers, and against the closed form where the data are Gaussian."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError
from cascade.sampling.samplers.table import make_sampler
from cascade.sampling.steps import ddim_step

DIFFUSERS_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("steps", [10, 50])
def test_the_trajectory_equals_diffusers(process, some_network, steps, prediction, eta, clip):
    process = NoiseProcess(process.schedule, prediction=prediction)
    theirs = DDIMScheduler(
        prediction_type=DIFFUSERS_NAMES[prediction],
        clip_sample=clip,
        timestep_spacing="trailing",
        **process.schedule.diffusers_config(),
    )
    theirs.set_timesteps(steps)
    noise, same_noise = SeededNoise([0, 1]), SeededNoise([0, 1])
    state, expected = noise.normal(3, 4, 4), same_noise.normal(3, 4, 4)
    sampler = make_sampler("ddim", process, steps, eta=eta, threshold="static" if clip else "none")
    for index, t in enumerate(theirs.timesteps):
        batch_t = t.expand(2)
        state, _ = sampler.step(some_network(state, batch_t), state, index, noise)
        fresh = same_noise.normal(3, 4, 4) if eta > 0 and index < steps - 1 else None
        expected = theirs.step(
            some_network(expected, batch_t),
            t,
            expected,
            eta=eta,
            use_clipped_model_output=True,
            variance_noise=fresh if fresh is not None else torch.zeros_like(expected),
        ).prev_sample
        torch.testing.assert_close(state, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("shift", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 30, 100])
def test_noise_is_mapped_as_the_closed_form_says(process, gaussian, run, steps, shift, prediction):
    process = NoiseProcess(process.schedule, prediction=prediction)
    sampler = make_sampler("ddim", process, steps, threshold="none", timestep_shift=shift)
    assert sampler.timesteps == process.schedule.sampling_timesteps(steps, shift)
    x_t = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    images, _ = run(sampler, gaussian.denoiser(process), x_t, SeededNoise([0]))
    factor = 1.0
    scales = gaussian.scales(process.schedule, sampler.timesteps)
    for alpha, sigma2, variance, alpha_prev, sigma2_prev, _ in scales:
        along = alpha * alpha_prev * gaussian.std**2 + math.sqrt(sigma2 * sigma2_prev)
        factor *= along / variance
    expected = gaussian.mean + factor * (x_t - scales[0][0] * gaussian.mean)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)


def test_many_steps_follow_the_probability_flow(fine_process, gaussian, run):
    sampler = make_sampler("ddim", fine_process, 500, threshold="none")
    x_t = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    images, _ = run(sampler, gaussian.denoiser(fine_process), x_t, SeededNoise([0]))
    expected = gaussian.flow(fine_process, x_t, 999)
    torch.testing.assert_close(images, expected, rtol=0, atol=0.01)


def test_the_step_uses_the_noise_that_belongs_to_the_thresholded_image(process):
    process = NoiseProcess(process.schedule, prediction="x0")
    sampler = make_sampler("ddim", process, 2, threshold="static")
    x_t = torch.full((1, 3, 4, 4), 0.5)
    state, x0 = sampler.step(torch.full_like(x_t, 3.0), x_t, 0, SeededNoise([0]))
    assert x0.equal(torch.ones_like(x0))
    eps = process.eps(x0, x_t, torch.tensor([99]))
    torch.testing.assert_close(state, ddim_step(process.schedule, x0, eps, 99, 49, None))


@pytest.mark.parametrize(("eta", "draws"), [(0.0, 1), (0.3, 10)])
def test_noise_is_drawn_only_for_an_eta_above_0_and_not_in_the_last_step(
    process, some_network, run, unit_draws, eta, draws
):
    noise = unit_draws(images=12)
    sampler = make_sampler("ddim", process, 10, eta=eta)
    run(sampler, some_network, noise.normal(1, 1, 1), noise)
    assert noise.draws == draws  # the start, and nine steps with fresh noise


@pytest.mark.parametrize("eta", [-0.1, math.nan, math.inf, "much", None])
def test_an_eta_that_is_no_number_from_0_is_refused(process, eta):
    with pytest.raises(ContractError, match="eta must be a number"):
        make_sampler("ddim", process, 5, eta=eta)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
@pytest.mark.parametrize("shift", [0, -1.0, 1e-17, 1001, math.nan, math.inf, "much", None])
def test_a_shift_that_is_no_number_above_0_is_refused(process, name, shift):
    with pytest.raises(ContractError, match="timestep_shift must be a number"):
        make_sampler(name, process, 5, timestep_shift=shift)


def test_a_shift_puts_more_of_the_timesteps_at_high_noise(process):
    steps = {
        shift: make_sampler("ddpm", process, 4, timestep_shift=shift).timesteps
        for shift in (0.5, 1.0, 2.0)
    }
    assert steps == {0.5: [99, 59, 32, 13], 1.0: [99, 74, 49, 24], 2.0: [99, 85, 66, 39]}
