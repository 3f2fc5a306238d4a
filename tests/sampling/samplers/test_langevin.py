"""Langevin steps, and the samplers that take them, against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.samplers.table import make_sampler
from cascade.sampling.steps import langevin_step

WEIGHTS, MEANS, STDS = torch.tensor([0.3, 0.7]), torch.tensor([-0.6, 0.5]), torch.tensor([0.1, 0.2])
SAMPLES = (1, 64, 64)  # independent pixels of one image


def mixture(process):
    """The network that a perfect training would give for a mixture of two Gaussian modes."""

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (each.unsqueeze(-1) for each in process.schedule.alpha_sigma(t))
        variance = alpha**2 * STDS**2 + sigma**2
        distance = x_t.unsqueeze(-1) - alpha * MEANS
        chance = (WEIGHTS.log() - variance.log() / 2 - distance**2 / variance / 2).softmax(-1)
        x0 = (chance * (MEANS + alpha * STDS**2 / variance * distance)).sum(-1)
        return process.target(x0, process.eps(x0, x_t, t), t)

    return network


@pytest.mark.parametrize("ratio", [0.16, 0.5])
@pytest.mark.parametrize("t", [30, 500])
def test_the_unadjusted_dynamics_end_at_the_variance_of_the_closed_form(
    fine_process, gaussian, unit_draws, ratio, t
):
    """On data of variance v, steps of size e lead to v / (1 - e / 2v)."""
    schedule, steps = fine_process.schedule, 150
    noise = unit_draws(images=steps + 1)
    x_t = noise.normal(1, 1, 1)
    alpha_bar = schedule.alpha_bar_at(t)
    alpha, v = math.sqrt(alpha_bar), alpha_bar * gaussian.std**2 + 1 - alpha_bar
    times = torch.full((steps + 1,), t)
    network = gaussian.denoiser(fine_process)
    for _ in range(steps - 1):
        x0 = fine_process.x0(network(x_t, times), x_t, times)
        fresh = noise.normal(1, 1, 1)
        x_t = langevin_step(schedule, x_t, x0, t, fresh, signal_to_noise=ratio)
    mean, e = x_t[0].item(), 2 * ratio**2 * (1 - alpha_bar)
    left = (1 - e / v) ** (2 * steps - 2)  # of the first variance
    spread = (x_t[1:] - mean).square().sum().item()
    expected = v / (1 - e / (2 * v))
    assert mean == pytest.approx(alpha * gaussian.mean, abs=math.sqrt(left) + 1e-4)
    assert spread == pytest.approx(expected + left * (1 - expected), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("ode", 30, {}),
        ("euler-maruyama", 250, {}),
        ("predictor-corrector", 50, {"corrections": 2}),
        ("predictor-corrector", 100, {"predictor": "ddpm"}),
        ("predictor-corrector", 150, {"predictor": "euler-maruyama"}),
        ("langevin", 60, {"corrections": 8}),
    ],
)
def test_the_modes_of_a_mixture_have_their_weights_and_moments(
    fine_process, run, name, steps, options
):
    sampler = make_sampler(name, fine_process, steps, threshold="none", **options)
    noise = SeededNoise([0])
    samples, _ = run(sampler, mixture(fine_process), sampler.start(noise.normal(*SAMPLES)), noise)
    is_second = samples > -0.2
    count = samples.numel()
    weight = is_second.float().mean().item()
    assert weight == pytest.approx(0.7, abs=3 * math.sqrt(0.3 * 0.7 / count))
    for mode, number in ((samples[~is_second], 0), (samples[is_second], 1)):
        std = float(STDS[number])
        error = std / math.sqrt(len(mode))
        assert mode.mean().item() == pytest.approx(float(MEANS[number]), abs=4 * error + 0.005)
        assert mode.std().item() == pytest.approx(std, rel=0.08)


def test_corrections_undo_what_a_rough_predictor_does_wrong(fine_process, gaussian, run):
    """In 20 steps, Euler-Maruyama makes too much variance."""
    errors = []
    for name, options in (
        ("euler-maruyama", {}),
        ("predictor-corrector", {"predictor": "euler-maruyama", "corrections": 8}),
    ):
        sampler = make_sampler(name, fine_process, 20, threshold="none", **options)
        noise = SeededNoise([0])
        start = noise.normal(*SAMPLES)
        samples, _ = run(sampler, gaussian.denoiser(fine_process), start, noise)
        errors.append(samples.std().item() - gaussian.std)
    assert errors[0] > 0.03
    assert abs(errors[1]) < 0.5 * errors[0]


def test_vanishing_corrections_leave_the_predictor_alone(process, some_network, run, monkeypatch):
    noise = SeededNoise([0, 1])
    start = noise.normal(1, 4, 4)
    corrected = make_sampler("predictor-corrector", process, 6, signal_to_noise=1e-9)
    images, _ = run(corrected, some_network, start, noise)
    ddim = make_sampler("ddim", process, 6)
    monkeypatch.setattr(DDIM, "timesteps", process.schedule.refined_timesteps(6))
    expected, _ = run(ddim, some_network, start, noise)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


def test_a_correction_costs_one_call(fine_process):
    sampler = make_sampler("predictor-corrector", fine_process, 3, corrections=2)
    assert sampler.timesteps == [999, 250, 250, 250, 0, 0, 0]
    langevin = make_sampler("langevin", fine_process, 3, corrections=2)
    assert langevin.timesteps == [999, 999, 250, 250, 0, 0, 0]


def test_batch_mates_of_any_size_change_no_image(process, run):
    """With norms averaged over the batch, a mate whose score is large would shrink all steps."""

    def images(scales):
        sampler = make_sampler("predictor-corrector", process, 4, threshold="none")
        noise = SeededNoise(range(len(scales)))
        start = noise.normal(1, 4, 4) * torch.tensor(scales).view(-1, 1, 1, 1)
        return run(sampler, lambda x_t, t: x_t, start, noise)[0]

    torch.testing.assert_close(images([1.0, 1000.0])[:1], images([1.0]), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["predictor-corrector", "langevin"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corrections": 0}, "corrections must be at least 1, got 0"),
        ({"corrections": 1.5}, "corrections must be a whole number"),
        ({"signal_to_noise": 0}, "signal_to_noise must be above 0 and below 1, got 0"),
        ({"signal_to_noise": 1.0}, "signal_to_noise must be above 0 and below 1"),
        ({"signal_to_noise": math.nan}, "signal_to_noise must be above 0 and below 1"),
        ({"signal_to_noise": "much"}, "signal_to_noise must be a number"),
    ],
)
def test_options_out_of_range_are_refused(process, name, options, message):
    with pytest.raises(ContractError, match=message):
        make_sampler(name, process, 5, **options)


def test_unknown_predictors_are_refused(process):
    with pytest.raises(ContractError, match=r"predictor must be one of \('ddim', .*got 'ode'"):
        make_sampler("predictor-corrector", process, 5, predictor="ode")
