"""Samplers against diffusers, and against the closed form where the data are Gaussian.

For pixels x0 ~ N(mu, s^2) the exact denoiser is known and linear in x_t, so that what every sampler
makes of a draw can be written down (m(t) = alpha mu, v(t) = alpha^2 s^2 + sigma^2).
"""

import math
from itertools import pairwise

import pytest
import torch
from cascade.sampling.samplers.all import DIFFUSERS_SAMPLERS, SAMPLERS, make_sampler
from diffusers import DDIMScheduler, DDPMScheduler

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.steps import ddim_step

MU, S = 0.2, 0.3
DIFFUSERS_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@pytest.fixture
def process():
    return NoiseProcess(NoiseSchedule("linear", train_steps=100), prediction="eps")


@pytest.fixture
def fine_process():
    return NoiseProcess(NoiseSchedule("cosine"), prediction="v")


class UnitDraws:
    """Noise that reads off weights: draw number j is 1 in image j, and 0 in all others."""

    def __init__(self, images):
        self.images, self.drawn = images, 0

    def normal(self, *shape):
        self.drawn += 1
        noise = torch.zeros(self.images, *shape)
        noise[self.drawn] = 1
        return noise


def run(sampler, network, state, noise):
    """The last state, and the predicted x0 of every step."""
    predicted = []
    for index, t in enumerate(sampler.timesteps):
        x_t = sampler.network_input(state, index)
        output = network(x_t, torch.full((state.shape[0],), t))
        state, x0 = sampler.step(output, state, index, noise)
        predicted.append(x0)
    return state, predicted


def some_network(x_t, t):
    """Any fixed function of the image and the time."""
    return 0.7 * torch.tanh(x_t) + 0.2 * torch.sin(3 * x_t + t.view(-1, 1, 1, 1) / 20)


def exact_denoiser(process):
    """The network that a perfect training on x0 ~ N(MU, S^2) would give."""

    def network(x_t, t):
        alpha, sigma = process.schedule.alpha_sigma(t)
        gain = alpha * S**2 / (alpha**2 * S**2 + sigma**2)
        x0 = MU + gain * (x_t - alpha * MU)
        return process.target(x0, process.eps(x0, x_t, t), t)

    return network


def walk(schedule, timesteps):
    """(alpha, sigma^2, v, alpha_prev, sigma_prev^2, v_prev) of every pair, ending at the image."""
    levels = [schedule.alpha_bar[t].item() for t in timesteps] + [1.0]
    scales = [(math.sqrt(a), 1 - a, a * S**2 + 1 - a) for a in levels]
    return [(*here, *after) for here, after in pairwise(scales)]


def exact_flow(process, x_t, t):
    """Where the probability flow takes x_t: each pixel keeps its number of standard deviations."""
    alpha, sigma = process.schedule.alpha_sigma(torch.tensor([t]))
    return MU + S * (x_t - alpha * MU) / (alpha**2 * S**2 + sigma**2).sqrt()


# ---- equal to diffusers --------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_trajectory_equals_diffusers(process, steps, prediction, eta, clip):
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
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [100, 25, 7])
def test_ddpm_trajectory_equals_diffusers(process, steps, variance, prediction):
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


# ---- equal to the closed form on Gaussian data ---------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 30, 100])
def test_ddim_maps_noise_as_the_closed_form(process, steps, prediction):  # trap 1
    process = NoiseProcess(process.schedule, prediction=prediction)
    sampler = make_sampler("ddim", process, steps, threshold="none")
    x_t = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    images, _ = run(sampler, exact_denoiser(process), x_t, SeededNoise([0]))
    factor = 1.0
    pairs = walk(process.schedule, sampler.timesteps)
    for alpha, variance, v, alpha_prev, variance_prev, _ in pairs:
        factor *= (alpha * alpha_prev * S**2 + math.sqrt(variance * variance_prev)) / v
    expected = MU + factor * (x_t - pairs[0][0] * MU)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 30, 100])
def test_ddpm_has_the_mean_and_variance_of_the_closed_form(process, steps, variance):  # trap 1
    sampler = make_sampler("ddpm", process, steps, threshold="none", variance=variance)
    noise = UnitDraws(images=steps + 1)
    images, _ = run(sampler, exact_denoiser(process), noise.normal(1, 1, 1), noise)
    mean = images[0].item()
    spread = (images[1:] - mean).square().sum().item()
    expected_mean, expected_spread = 0.0, 1.0
    for alpha, sigma2, v, alpha_prev, sigma2_prev, v_prev in walk(
        process.schedule, sampler.timesteps
    ):
        slope = alpha / alpha_prev * v_prev / v  # of E[x_prev | x_t]
        expected_mean = alpha_prev * MU + slope * (expected_mean - alpha * MU)
        beta = 1 - alpha**2 / alpha_prev**2
        fresh = beta * (sigma2_prev / sigma2 if variance == "small" else 1.0)
        expected_spread = slope**2 * expected_spread + (fresh if sigma2_prev > 0 else 0.0)
    assert mean == pytest.approx(expected_mean, abs=1e-4)
    assert spread == pytest.approx(expected_spread, rel=1e-3, abs=1e-6)


def test_ddpm_and_ddim_reach_the_distribution_of_the_data(fine_process):
    ddpm = make_sampler("ddpm", fine_process, 500, threshold="none")
    noise = UnitDraws(images=501)
    images, _ = run(ddpm, exact_denoiser(fine_process), noise.normal(1, 1, 1), noise)
    assert images[0].item() == pytest.approx(MU, abs=0.002)
    assert (images[1:] - images[0]).square().sum().sqrt().item() == pytest.approx(S, rel=0.02)
    ddim = make_sampler("ddim", fine_process, 500, threshold="none")
    x_t = torch.linspace(-3, 3, 13).view(1, 1, 1, 13)
    images, _ = run(ddim, exact_denoiser(fine_process), x_t, noise)
    torch.testing.assert_close(images, exact_flow(fine_process, x_t, 999), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc", "heun", "euler", "deis"])
def test_diffusers_samplers_converge_to_the_exact_flow(fine_process, name):
    sampler = make_sampler(name, fine_process, 250, threshold="none")
    state = sampler.start(torch.linspace(-3, 3, 13).view(1, 1, 1, 13))
    expected = exact_flow(fine_process, sampler.network_input(state, 0), 999)
    images, _ = run(sampler, exact_denoiser(fine_process), state, SeededNoise([0]))
    torch.testing.assert_close(images, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize(("name", "ours"), [("euler", "ddim"), ("euler-ancestral", "ddpm")])
def test_first_order_diffusers_samplers_are_ddim_and_ddpm(fine_process, name, ours):
    theirs = make_sampler(name, fine_process, 20)
    noise = SeededNoise([0, 1])
    state = theirs.start(noise.normal(1, 4, 4))
    x_t = theirs.network_input(state, 0)
    images, _ = run(theirs, some_network, state, noise)
    noise = SeededNoise([0, 1])
    noise.normal(1, 4, 4)
    expected, _ = run(make_sampler(ours, fine_process, 20), some_network, x_t, noise)
    torch.testing.assert_close(images, expected, rtol=0, atol=2e-3)


# ---- timesteps and the last step -----------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 7, 30])
def test_walk_starts_in_the_last_training_timestep_and_ends_in_the_predicted_image(
    process, name, steps
):  # traps 2 and 3
    sampler = make_sampler(name, process, steps)
    noise = SeededNoise([0, 1, 2])
    state, predicted = run(sampler, some_network, sampler.start(noise.normal(3, 8, 8)), noise)
    assert sampler.timesteps[0] == 99
    assert len(set(sampler.timesteps)) == steps
    assert state.equal(predicted[-1])


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
@pytest.mark.parametrize("train_steps", [37, 100, 1000])
def test_own_samplers_take_as_many_steps_as_asked(name, train_steps):  # trap 5
    process = NoiseProcess(NoiseSchedule(train_steps=train_steps))
    for steps in range(1, train_steps + 1, 3):
        pairs = make_sampler(name, process, steps).pairs
        assert len(pairs) == steps
        assert [t for t, _ in pairs[1:]] == [t_prev for _, t_prev in pairs[:-1]]
        assert pairs[0][0] == train_steps - 1
        assert pairs[-1][1] == -1


def test_ddpm_draws_no_noise_in_its_last_step(process):  # trap 3
    noise = UnitDraws(images=11)
    run(make_sampler("ddpm", process, 10), some_network, noise.normal(1, 1, 1), noise)
    assert noise.drawn == 10  # the start and nine steps


def test_diffusers_sampler_with_a_step_too_many_is_refused(fine_process):
    """np.arange(1000, 0, -1000 / 61) has 62 entries, the last of which would be timestep -1."""
    with pytest.raises(ContractError, match="cannot space 61 of 1000"):
        make_sampler("dpmsolver++", fine_process, 61)


# ---- thresholds, variances, schedules ------------------------------------------------------------


def test_ddim_takes_the_noise_that_belongs_to_the_thresholded_image(process):  # trap 4
    process = NoiseProcess(process.schedule, prediction="x0")
    sampler = make_sampler("ddim", process, 2, threshold="static")
    x_t = torch.full((1, 3, 4, 4), 0.5)
    state, x0 = sampler.step(torch.full_like(x_t, 3.0), x_t, 0, SeededNoise([0]))
    assert x0.equal(torch.ones_like(x0))
    eps = process.eps(x0, x_t, torch.tensor([99]))
    torch.testing.assert_close(state, ddim_step(process.schedule, x0, eps, 99, 49, None))


@pytest.mark.parametrize("name", SAMPLERS)
def test_thresholds_act_on_the_predicted_image_of_every_sampler(name, process):  # trap 23
    process = NoiseProcess(process.schedule, prediction="x0")
    for threshold, reach in (("none", 3.0), ("static", 1.0), ("dynamic", 1.0)):
        sampler = make_sampler(name, process, 5, threshold=threshold, percentile=1.0)
        noise = SeededNoise([0])
        ramp = torch.linspace(-1, 3, 16).view(1, 1, 4, 4)
        images, _ = run(
            sampler, lambda x, t, x0=ramp: x0, sampler.start(noise.normal(1, 4, 4)), noise
        )
        assert images.max().item() == pytest.approx(reach)
        assert images.min().item() == pytest.approx(-1 / 3 if threshold == "dynamic" else -1)


def test_named_diffusers_schedulers_do_not_clip_on_their_own(process):
    process = NoiseProcess(process.schedule, prediction="x0")
    sampler = make_sampler("DDIMScheduler", process, 2, threshold="none")
    x_t = torch.full((1, 3, 4, 4), 0.5)
    state, _ = sampler.step(torch.full_like(x_t, 3.0), x_t, 0, SeededNoise([0]))
    eps = process.eps(torch.full_like(x_t, 3.0), x_t, torch.tensor([99]))
    expected = ddim_step(process.schedule, torch.full_like(x_t, 3.0), eps, 99, 49, None)
    torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_learned_variance_channels_are_only_used_by_ddpm(name, process):  # trap 11
    learned = NoiseProcess(process.schedule, prediction="eps", learned_variance=True)

    def images(process, variance):
        sampler = make_sampler(name, process, 5)
        noise = SeededNoise([0, 1])

        def network(x_t, t):
            prediction = some_network(x_t, t)
            return prediction if variance is None else torch.cat([prediction, variance], dim=1)

        return run(sampler, network, sampler.start(noise.normal(1, 4, 4)), noise)[0]

    large = torch.full((2, 1, 4, 4), 1.0)
    if name == "ddpm":
        torch.testing.assert_close(images(learned, -large), images(process, None))
        assert not images(learned, large).allclose(images(process, None))
    else:
        assert images(learned, large).equal(images(process, None))


@pytest.mark.parametrize("name", [*DIFFUSERS_SAMPLERS, "PNDMScheduler"])
@pytest.mark.parametrize(
    "values",
    [
        {"kind": "linear", "train_steps": 12},
        {"zero_terminal_snr": True},
        {"shift": 0.5},
        {"shift": 0.5, "zero_terminal_snr": True},
    ],
)
def test_diffusers_samplers_walk_our_schedule(name, values):
    schedule = NoiseSchedule(**{"train_steps": 100} | values)
    process = NoiseProcess(schedule, prediction="v")
    sampler = make_sampler(name, process, 4)
    table = sampler.scheduler.alphas_cumprod
    torch.testing.assert_close(table, schedule.alpha_bar.float(), rtol=1e-3, atol=1e-5)
    noise = SeededNoise([0])
    images, _ = run(sampler, some_network, sampler.start(noise.normal(1, 4, 4)), noise)
    assert images.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_is_the_same_in_any_batch(name, fine_process):  # trap 30
    def images(seeds):
        noise = SeededNoise(seeds)
        sampler = make_sampler(name, fine_process, 6, **({"eta": 0.7} if name == "ddim" else {}))
        return run(sampler, some_network, sampler.start(noise.normal(1, 4, 4)), noise)[0]

    batch = images([5, 6, 7, 8, 9])
    for seeds in ([7], [6, 7]):
        torch.testing.assert_close(images(seeds)[-1], batch[2], rtol=0, atol=1e-6)


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dddim", {}, "unknown sampler 'dddim': did you mean 'ddim'"),
        ("NoScheduler", {}, "unknown sampler"),
        ("FlowMatchEulerDiscreteScheduler", {}, "cannot be given the stage's noise schedule"),
        ("ddpm", {"eta": 0.5}, "'ddpm' has no option 'eta'"),
        ("ddim", {"variance": "large"}, "'ddim' has no option 'variance'"),
        ("heun", {"eta": 0.5}, "'heun' has no option 'eta'"),
    ],
)
def test_unknown_samplers_and_options_without_effect_are_refused(
    process, name, options, message
):  # trap 7
    with pytest.raises(ContractError, match=message):
        make_sampler(name, process, 5, **options)


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_out_of_range_are_refused(process, name):
    for steps in (0, 101):
        with pytest.raises(ContractError, match="from 1 to 100"):
            make_sampler(name, process, steps)
