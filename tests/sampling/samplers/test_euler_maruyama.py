"""Euler-Maruyama against the closed form where the data are Gaussian."""

import pytest

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.sampling.samplers.table import make_sampler


@pytest.mark.parametrize("steps", [1, 7, 100])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_samples_have_the_mean_and_variance_of_the_closed_form(
    gaussian, run, unit_draws, steps, zero_snr
):
    schedule = NoiseSchedule(train_steps=100, zero_terminal_snr=zero_snr)
    process = NoiseProcess(schedule, prediction="v")
    sampler = make_sampler("euler-maruyama", process, steps, threshold="none")
    noise = unit_draws(images=steps + 1)
    images, _ = run(sampler, gaussian.denoiser(process), noise.normal(1, 1, 1), noise)
    mean = images[0].item()
    spread = (images[1:] - mean).square().sum().item()
    expected_mean, expected_spread = 0.0, 1.0
    *steps_between, last = gaussian.scales(schedule, sampler.timesteps)
    for alpha, _, v, alpha_prev, _, _ in steps_between:
        beta = 1 - alpha**2 / alpha_prev**2
        expected_mean += beta * (expected_mean / 2 - (expected_mean - alpha * gaussian.mean) / v)
        expected_spread = (1 + beta / 2 - beta / v) ** 2 * expected_spread + beta
    alpha, _, v = last[:3]
    gain = alpha * gaussian.std**2 / v
    expected_mean = gaussian.mean + gain * (expected_mean - alpha * gaussian.mean)
    assert mean == pytest.approx(expected_mean, abs=1e-4)
    assert spread == pytest.approx(gain**2 * expected_spread, rel=1e-3, abs=1e-6)


def test_many_steps_reach_the_distribution_of_the_data(fine_process, gaussian, run, unit_draws):
    sampler = make_sampler("euler-maruyama", fine_process, 500, threshold="none")
    noise = unit_draws(images=501)
    images, _ = run(sampler, gaussian.denoiser(fine_process), noise.normal(1, 1, 1), noise)
    assert images[0].item() == pytest.approx(gaussian.mean, abs=0.005)
    spread = (images[1:] - images[0]).square().sum().sqrt().item()
    assert spread == pytest.approx(gaussian.std, rel=0.03)


def test_no_noise_is_drawn_in_the_last_step(process, some_network, run, unit_draws):
    noise = unit_draws(images=11)
    run(make_sampler("euler-maruyama", process, 10), some_network, noise.normal(1, 1, 1), noise)
    assert noise.draws == 10  # the start and nine steps
