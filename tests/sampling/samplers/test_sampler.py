"""What holds for every sampler."""

import pytest
import torch

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.samplers.sampler import GridSampler, PairSampler
from cascade.sampling.samplers.table import SAMPLERS, make_sampler, sampler_names

RANDOM = ("ddpm", "euler-maruyama", "predictor-corrector", "langevin", "euler-ancestral")
every_sampler = pytest.mark.parametrize("name", sampler_names())


@every_sampler
@pytest.mark.parametrize("steps", [1, 7, 30])
def test_walks_go_from_the_last_training_timestep_to_the_predicted_image(
    process, some_network, run, name, steps
):
    sampler = make_sampler(name, process, steps)
    noise = SeededNoise([0, 1, 2])
    state, predictions = run(sampler, some_network, sampler.start(noise.normal(3, 8, 8)), noise)
    assert sampler.timesteps[0] == 99
    assert len(set(sampler.timesteps)) == steps
    assert state.equal(predictions[-1])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("train_steps", [37, 100, 1000])
def test_samplers_of_our_own_take_exactly_as_many_steps_as_asked(name, train_steps):
    process = NoiseProcess(NoiseSchedule(train_steps=train_steps))
    for steps in range(1, train_steps + 1, 3):
        sampler = make_sampler(name, process, steps)
        assert isinstance(sampler, GridSampler)
        timesteps = sampler.timesteps
        assert len(set(timesteps)) == steps
        assert timesteps == sorted(timesteps, reverse=True)
        assert timesteps[0] == train_steps - 1
        if not isinstance(sampler, PairSampler):
            continue
        pairs = sampler.pairs
        assert len(pairs) == steps
        assert [t for t, _ in pairs[1:]] == [t_prev for _, t_prev in pairs[:-1]]
        assert pairs[-1][1] == -1


@every_sampler
def test_noised_images_reach_the_network_as_those_of_training(process, name):
    """x_t of q(x_t | x0) at the timestep of the call, with the noise that was passed."""
    draw = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 4, 4, generator=draw) * 2 - 1
    eps = torch.randn(2, 3, 4, 4, generator=draw)
    for index, t in enumerate(make_sampler(name, process, 5).timesteps):
        sampler = make_sampler(name, process, 5)  # diffusers' remember where they are
        x_t = sampler.network_input(sampler.noised(x0, eps, index), index)
        expected = process.schedule.add_noise(x0, eps, torch.tensor([t, t]))
        torch.testing.assert_close(x_t, expected, rtol=1e-3, atol=1e-3)


@every_sampler
def test_noised_images_are_the_states_of_a_walk(process, run, name):
    """With a network that knows the image, every state holds it as noisy as `noised` says."""
    x0 = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    is_random = name in RANDOM
    network_inputs = []

    def network(x_t, t):
        network_inputs.append(x_t)
        return process.target(x0, process.eps(x0, x_t, t), t)

    sampler = make_sampler(name, process, 5)
    noise = SeededNoise([0])
    eps = noise.normal(1, 4, 4)
    images, _ = run(sampler, network, sampler.start(eps), noise)
    torch.testing.assert_close(images, x0, rtol=0, atol=2e-3)
    first = process.eps(x0, network_inputs[0], torch.tensor([99]))
    for index, x_t in enumerate(network_inputs[: 1 if is_random else None]):
        fresh = make_sampler(name, process, 5)
        expected = fresh.network_input(fresh.noised(x0, first, index), index)
        torch.testing.assert_close(x_t, expected, rtol=0, atol=0.02)


@every_sampler
def test_thresholds_act_on_the_predicted_image(process, run, name):
    process = NoiseProcess(process.schedule, prediction="x0")
    for threshold, largest in (("none", 3.0), ("static", 1.0), ("dynamic", 1.0)):
        sampler = make_sampler(name, process, 5, threshold=threshold, percentile=1.0)
        noise = SeededNoise([0])
        ramp = torch.linspace(-1, 3, 16).view(1, 1, 4, 4)
        images, _ = run(
            sampler, lambda x, t, x0=ramp: x0, sampler.start(noise.normal(1, 4, 4)), noise
        )
        assert images.max().item() == pytest.approx(largest)
        assert images.min().item() == pytest.approx(-1 / 3 if threshold == "dynamic" else -1)


@every_sampler
def test_learned_variances_are_only_used_by_ddpm(process, some_network, run, name):
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


@every_sampler
def test_an_image_is_the_same_in_any_batch(fine_process, some_network, run, name):
    def images(seeds):
        noise = SeededNoise(seeds)
        sampler = make_sampler(name, fine_process, 6, **({"eta": 0.7} if name == "ddim" else {}))
        return run(sampler, some_network, sampler.start(noise.normal(1, 4, 4)), noise)[0]

    batch = images([5, 6, 7, 8, 9])
    for seeds in ([7], [6, 7]):
        torch.testing.assert_close(images(seeds)[-1], batch[2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_our_own_step_a_strip_as_they_step_the_whole(process, some_network, run, name):
    """Each pixel depends on no other one, unless the threshold is that of the whole image."""
    options = {"eta": 0.5} if name == "ddim" else {}
    sampler = make_sampler(name, process, 5, **options)
    assert sampler.by_strips
    assert not make_sampler(name, process, 5, threshold="dynamic").by_strips
    state = SeededNoise([0]).normal(1, 6, 4)
    output = some_network(state, torch.tensor([99]))
    whole, _ = sampler.step(output, state, 0, SeededNoise([1]))
    noise = SeededNoise([1]).normal(1, 6, 4)

    class Rows:
        rows = slice(2, 5)

        def normal(self, *shape):
            return noise[..., 2:5, :]

    strip, _ = sampler.step(output[..., 2:5, :], state[..., 2:5, :], 0, Rows())
    assert strip.equal(whole[..., 2:5, :])


def test_samplers_that_draw_no_noise_step_by_strips(process):
    whole = {"euler-ancestral"}
    for name in set(sampler_names()) - set(SAMPLERS):
        assert make_sampler(name, process, 5).by_strips == (name not in whole), name
    for config in ({"algorithm_type": "sde-dpmsolver++"}, {"thresholding": True}):
        assert not make_sampler("dpmsolver++", process, 5, config=config).by_strips
    assert not make_sampler("unipc", process, 5, threshold="dynamic").by_strips
    assert not make_sampler("KDPM2DiscreteScheduler", process, 5).by_strips


def test_samplers_count_the_canvases_that_they_remember(process):
    assert make_sampler("ddim", process, 5).canvases == 0
    assert make_sampler("ode", process, 5).canvases == 1  # the first prediction of the step
    assert make_sampler("unipc", process, 5).canvases == 3  # two predictions and the last images
    assert make_sampler("euler-ancestral", process, 5).canvases > 3


@pytest.mark.parametrize(("strength", "index"), [(1.0, 0), (0.5, 5), (0.26, 7), (0.01, 9)])
def test_the_strength_is_the_share_of_the_steps_that_are_taken(process, strength, index):
    assert make_sampler("ddim", process, 10).first_call(strength) == index
    for name, calls in (("ode", 2), ("predictor-corrector", 2), ("langevin", 5)):
        sampler = make_sampler(name, process, 10)
        assert isinstance(sampler, GridSampler)
        assert sampler.first_call(strength) == calls * index
        t = sampler.timesteps[calls * index]
        assert sorted(set(sampler.timesteps), reverse=True).index(t) == index


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.1, float("nan")])
def test_strengths_out_of_range_are_refused(process, strength):
    with pytest.raises(ContractError, match="strength must be above 0 and at most 1, got"):
        make_sampler("ddpm", process, 10).first_call(strength)
