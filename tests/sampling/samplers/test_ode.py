"""The probability flow: Heun's method against the closed form where the data are Gaussian."""

import pytest
import torch

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.sampling.samplers.table import make_sampler


def flow_error(process, gaussian, run, name, steps):
    """The largest distance from the flow, which scales the deviation of Gaussian data."""
    sampler = make_sampler(name, process, steps, threshold="none")
    x_t = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    images, _ = run(sampler, gaussian.denoiser(process), x_t, SeededNoise([0]))
    return (images - gaussian.flow(process, x_t, 999)).abs().max().item()


@pytest.mark.parametrize("prediction", ["x0", "v"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_on_gaussian_data_the_flow_is_a_scaling(gaussian, run, prediction, zero_snr):
    schedule = NoiseSchedule(zero_terminal_snr=zero_snr)
    process = NoiseProcess(schedule, prediction=prediction)
    assert flow_error(process, gaussian, run, "ode", 51) < 0.005


def test_it_is_of_second_order_and_closer_to_the_flow_than_ddim_in_as_many_calls(
    fine_process, gaussian, run
):
    coarse, fine = (flow_error(fine_process, gaussian, run, "ode", n) for n in (13, 26))
    assert 3 < coarse / fine < 6
    assert flow_error(fine_process, gaussian, run, "ddim", 51) > 5 * fine


def test_its_first_call_is_a_step_of_ddim_without_noise(fine_process, some_network):
    """In these variables, Euler's method is DDIM with eta 0."""
    ode, ddim = (make_sampler(name, fine_process, 3) for name in ("ode", "ddim"))
    state, noise = SeededNoise([0]).normal(1, 4, 4), SeededNoise([1])
    output = some_network(state, torch.tensor([999]))
    moved, x0 = ode.step(output, state, 0, noise)
    t, t_prev = 999, ode.timesteps[1]
    expected = ddim.move(x0, state, (t, t_prev), noise, None)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)


def test_it_calls_the_network_twice_a_step_except_in_the_last(fine_process):
    assert make_sampler("ode", fine_process, 3).timesteps == [999, 250, 250, 0, 0]
    assert make_sampler("ode", fine_process, 1).timesteps == [999]


def test_it_draws_no_noise(process, some_network, run, unit_draws):
    noise = unit_draws(images=2)
    noise.rows = slice(None)
    run(make_sampler("ode", process, 5), some_network, noise.normal(1, 1, 1), noise)
    assert noise.draws == 1  # the start
