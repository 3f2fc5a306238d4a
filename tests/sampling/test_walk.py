"""One walk for whole images and for strips of them: the same images, hooks and numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.canvas import CanvasNoise
from cascade.sampling.resampling import Resampling
from cascade.sampling.samplers.sampler import GridSampler, Sampler
from cascade.sampling.samplers.table import SAMPLERS, make_sampler, sampler_names
from cascade.sampling.walk import Hooks, Known, StartFrom, walk

SHAPE = (2, 3, 12, 8)
SEEDS = [4, 5]
STEPS = 5
every_sampler = pytest.mark.parametrize("name", sampler_names())
own_sampler = pytest.mark.parametrize("name", SAMPLERS)
strip_counts = pytest.mark.parametrize("count", [1, 3])


@dataclass
class PointwiseStrips:
    """A network that looks at one pixel at a time, in strips of equal height.

    Attributes:
        count: number of strips.
        calls: every strip's (index, timestep, x_t).
    """

    count: int = 1
    calls: list[tuple[int, int, Tensor]] = field(default_factory=list)

    def outputs(
        self, canvas: Tensor, sampler: Sampler, index: int
    ) -> Iterator[tuple[slice, Tensor]]:
        height = canvas.shape[-2] // self.count
        t = sampler.timesteps[index]
        for number in range(self.count):
            rows = slice(number * height, (number + 1) * height)
            x_t = sampler.network_input(canvas[..., rows, :], index)
            self.calls.append((index, t, x_t.clone()))
            yield rows, 0.7 * torch.tanh(x_t) + 0.2 * torch.sin(3 * x_t + t / 20)


@pytest.fixture
def process() -> NoiseProcess:
    """100 timesteps, v prediction."""
    return NoiseProcess(NoiseSchedule("cosine", train_steps=100), prediction="v")


@pytest.fixture
def walked(process):
    """A function that walks from the noise of two seeds to images, and records the network."""

    def run(name="ddim", strips=None, hooks=None, temperature=1.0, **options) -> Tensor:
        noise = SeededNoise(SEEDS)
        noise.temperature = temperature
        sampler = make_sampler(name, process, options.pop("steps", STEPS), **options)
        start = noise.normal(*SHAPE[1:])
        fresh = CanvasNoise(noise, SHAPE)
        return walk(sampler, strips or PointwiseStrips(), start, fresh, hooks or Hooks())

    return run


@pytest.fixture
def images() -> Tensor:
    """Two images of the canvas's size."""
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(3)) * 1.6 - 0.8


def by_hand(process: NoiseProcess, name: str, **options) -> Tensor:
    """The walk as a plain loop over whole images."""
    noise = SeededNoise(SEEDS)
    sampler = make_sampler(name, process, options.pop("steps", STEPS), **options)
    state, strips = sampler.start(noise.normal(*SHAPE[1:])), PointwiseStrips()
    for index in range(len(sampler.timesteps)):
        ((_, output),) = strips.outputs(state, sampler, index)
        state, _ = sampler.step(output, state, index, noise)
    return state


# ---- whole images and strips --------------------------------------------------------------------


@every_sampler
@strip_counts
def test_a_walk_is_a_loop_over_the_sampler_s_steps(walked, process, name, count):
    images = walked(name, PointwiseStrips(count))
    torch.testing.assert_close(images, by_hand(process, name), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddim", {"eta": 0.8}),
        ("ddim", {"threshold": "dynamic", "percentile": 0.7}),
        ("ddpm", {"threshold": "none"}),
        ("ddpm", {"threshold": "dynamic", "percentile": 0.7, "variance": "large"}),
        ("unipc", {"threshold": "dynamic", "percentile": 0.7}),
        ("unipc", {"steps": 20, "config": {"use_karras_sigmas": True}}),  # timesteps repeat
    ],
)
def test_strips_change_nothing_with_any_options_and_threshold(walked, process, name, options):
    expected = by_hand(process, name, **options)
    for count in (1, 2, 4):
        images = walked(name, PointwiseStrips(count), **options)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(sampler_names()) - {"euler-ancestral"}))
def test_a_temperature_scales_the_first_noise_and_that_of_the_steps(process, name):
    """A network that knows only zeros leaves nothing but the noise, of which x_t is linear."""

    class Zeros(PointwiseStrips):
        def outputs(self, canvas, sampler, index):
            for rows, output in super().outputs(canvas, sampler, index):
                yield rows, torch.zeros_like(output)

    for count in (1, 3):
        warm, cool = Zeros(count), Zeros(count)
        for strips, temperature in ((warm, 1.0), (cool, 0.5)):
            noise = SeededNoise(SEEDS)
            noise.temperature = temperature
            sampler = make_sampler(name, process, STEPS, threshold="none")
            fresh = CanvasNoise(noise, SHAPE)
            walk(sampler, strips, noise.normal(*SHAPE[1:]), fresh, Hooks())
        for (_, _, x_t), (_, _, half) in zip(warm.calls, cool.calls, strict=True):
            torch.testing.assert_close(half, 0.5 * x_t, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["euler-ancestral", "DDPMScheduler"])
def test_noise_that_a_scheduler_of_diffusers_draws_has_no_other_temperature(walked, name):
    assert walked(name).isfinite().all()
    with pytest.raises(ContractError, match=r"adds noise at temperature 1 only, got 0\.5; use"):
        walked(name, temperature=0.5)


# ---- known pixels -------------------------------------------------------------------------------


@pytest.fixture
def known(images) -> Known:
    """One image for the whole batch, with a stroke of known pixels across strips."""
    mask = torch.zeros(12, 8, dtype=torch.bool)
    mask[2:9, 3:5] = True
    return Known(images[:1], mask)


@every_sampler
@strip_counts
def test_known_pixels_are_noised_before_every_step_and_exact_in_the_result(
    walked, process, images, known, name, count
):
    strips = PointwiseStrips(count)
    result = walked(name, strips, Hooks(known=known))
    mask = known.mask
    assert result[..., mask].equal(known.image.expand(SHAPE)[..., mask])
    assert not result[..., ~mask].allclose(known.image.expand(SHAPE)[..., ~mask], atol=0.1)
    x0, eps = images[:1].expand(SHAPE), SeededNoise(SEEDS).normal(*SHAPE[1:])
    by_index = itertools.groupby(strips.calls, key=lambda call: call[0])
    for index, calls in by_index:
        fresh = make_sampler(name, process, STEPS)
        expected = fresh.network_input(fresh.noised(x0, eps, index), index)
        x_t = torch.cat([x_t for _, _, x_t in calls], dim=-2)
        torch.testing.assert_close(x_t[..., mask], expected[..., mask], rtol=1e-4, atol=1e-4)


@every_sampler
def test_known_pixels_are_the_same_in_strips(walked, known, name):
    whole, strips = (walked(name, PointwiseStrips(n), Hooks(known=known)) for n in (1, 4))
    torch.testing.assert_close(strips, whole, rtol=0, atol=1e-6)


def test_known_pixels_of_a_smaller_image_lie_at_the_top_left(walked, images):
    """The canvas may be larger than the image, since networks take only multiples of a size."""
    small = Known(images[..., :10, :7], torch.ones(10, 7, dtype=torch.bool))
    result = walked("ddpm", hooks=Hooks(known=small))
    assert result[..., :10, :7].equal(images[..., :10, :7])
    assert not result[..., 10:, :].allclose(images[..., 10:, :], atol=0.1)


@strip_counts
def test_images_of_a_batch_may_know_different_pixels(walked, images, count):
    mask = torch.rand(2, 12, 8, generator=torch.Generator().manual_seed(6)) < 0.4
    result = walked("ddpm", PointwiseStrips(count), Hooks(known=Known(images, mask)))
    for i in range(2):
        assert result[i][:, mask[i]].equal(images[i][:, mask[i]])
        alone = walked("ddpm", PointwiseStrips(count), Hooks(known=Known(images, mask[i])))
        torch.testing.assert_close(alone[i], result[i], rtol=0, atol=1e-6)
    with pytest.raises(ContractError, match="for all 2 images or for 1, got 2 and masks for 3"):
        walked("ddpm", hooks=Hooks(known=Known(images, torch.ones(3, 12, 8) > 0)))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ((1, 3, 12, 9), (12, 9)),
        ((1, 3, 12, 8), (12, 7)),
        ((1, 1, 12, 8), (12, 8)),
    ],
)
def test_known_pixels_that_do_not_fit_are_refused(walked, image, mask):
    known = Known(torch.zeros(image), torch.ones(mask, dtype=torch.bool))
    with pytest.raises(ContractError, match=r"image \(B, 3, h, w\) and a mask \(h, w\), no larger"):
        walked(hooks=Hooks(known=known))


# ---- starting from images -----------------------------------------------------------------------


@own_sampler
@strip_counts
@pytest.mark.parametrize(("strength", "steps"), [(1.0, 5), (0.6, 3), (0.2, 1), (0.01, 1)])
def test_a_walk_starts_from_an_image_noised_as_its_strength_says(
    walked, process, images, name, count, strength, steps
):
    strips = PointwiseStrips(count)
    walked(name, strips, Hooks(start_from=StartFrom(images, strength)))
    indices = [index for index, _, _ in strips.calls]
    sampler = make_sampler(name, process, STEPS)
    assert isinstance(sampler, GridSampler)
    first_call = (STEPS - steps) * sampler.calls_per_step
    assert sorted(set(indices)) == list(range(first_call, len(sampler.timesteps)))
    first = torch.cat([x_t for _, _, x_t in strips.calls[:count]], dim=-2)
    noise = SeededNoise(SEEDS).normal(*SHAPE[1:])
    t = torch.tensor([strips.calls[0][1]] * 2)
    assert t[0] == sorted(set(sampler.timesteps))[steps - 1]
    assert first.equal(process.schedule.add_noise(images, noise, t))


def test_an_image_smaller_than_the_canvas_lies_at_its_top_left(walked, process, images):
    strips = PointwiseStrips()
    walked("ddim", strips, Hooks(start_from=StartFrom(images[..., :10, :7], 0.2)))
    padded = images.clone()
    padded[..., 7:] = padded[..., 6:7]
    padded[..., 10:, :] = padded[..., 9:10, :]
    noise = SeededNoise(SEEDS).normal(*SHAPE[1:])
    (_, t, x_t), *_ = strips.calls
    assert x_t.equal(process.schedule.add_noise(padded, noise, torch.tensor([t, t])))


@pytest.mark.parametrize("name", sorted(set(sampler_names()) - set(SAMPLERS)))
def test_samplers_of_diffusers_cannot_start_from_an_image(walked, images, name):
    with pytest.raises(ContractError, match="samplers of diffusers cannot start from an image"):
        walked(name, hooks=Hooks(start_from=StartFrom(images, 0.5)))


@pytest.mark.parametrize(
    ("size", "strength", "message"),
    [
        ((2, 3, 12, 8), 0.0, r"strength must be above 0 and at most 1, got 0\.0"),
        ((2, 3, 12, 8), 1.1, "strength must be above 0"),
        ((1, 3, 12, 8), 0.5, r"start from must be \(2, 3, 12, 8\), got \(1, 3, 12, 8\)"),
    ],
)
def test_starts_that_cannot_be_made_are_refused(walked, size, strength, message):
    with pytest.raises(ContractError, match=message):
        walked(hooks=Hooks(start_from=StartFrom(torch.zeros(size), strength)))


# ---- callback and progress ----------------------------------------------------------------------


@every_sampler
def test_a_callback_sees_every_step_alike_in_whole_images_and_strips(walked, process, name):
    seen = {1: [], 3: []}
    for count, steps in seen.items():

        def keep(index, t, tensors, steps=steps):
            steps.append((index, t, tensors["x_t"].clone(), tensors["x0"].clone()))

        result = walked(name, PointwiseStrips(count), Hooks(callback=keep))
        timesteps = make_sampler(name, process, STEPS).timesteps
        assert [(index, t) for index, t, _, _ in steps] == list(enumerate(timesteps))
        assert steps[-1][2].equal(result)
        assert steps[-1][3].equal(result)
    for (_, _, x_t, x0), (_, _, other_x_t, other_x0) in zip(*seen.values(), strict=True):
        torch.testing.assert_close(other_x_t, x_t, rtol=0, atol=1e-4)
        torch.testing.assert_close(other_x0, x0, rtol=0, atol=1e-6)


def test_what_a_callback_keeps_stays_as_it_was(walked, images):
    """Known pixels and jumps back change the canvas in place."""
    kept = []

    def keep(index, t, tensors):
        kept.extend((each, each.clone()) for each in tensors.values())

    known, resampling = Known(images, images[0, 0] > 0), Resampling(resamplings=3)
    walked("ddim", hooks=Hooks(known=known, resampling=resampling, callback=keep))
    assert all(now.equal(then) for now, then in kept)


@strip_counts
def test_a_callback_may_replace_the_images(walked, process, count):
    def replace_after_the_third(index, t, tensors):
        return {"x_t": torch.full_like(tensors["x_t"], 0.25)} if index == 2 else None

    strips = PointwiseStrips(count)
    walked("ddim", strips, Hooks(callback=replace_after_the_third))
    fourth = [x_t for index, _, x_t in strips.calls if index == 3]
    assert all(x_t.eq(0.25).all() for x_t in fourth)
    result = walked(
        "ddim",
        PointwiseStrips(count),
        Hooks(callback=lambda index, t, tensors: {"x_t": torch.full_like(tensors["x_t"], 0.25)}),
    )
    assert result.eq(0.25).all()


@pytest.mark.parametrize("name", ["ddim", "heun"])
@pytest.mark.parametrize("count", [1, 4])
def test_progress_is_reported_after_every_strip(walked, process, name, count):
    reports = []
    walked(name, PointwiseStrips(count), Hooks(progress=lambda *at: reports.append(at)))
    total = count * len(make_sampler(name, process, STEPS).timesteps)
    assert reports == [(number, total) for number in range(1, total + 1)]


def test_progress_of_a_walk_from_an_image_counts_the_steps_left_out(walked, images):
    reports = []
    hooks = Hooks(start_from=StartFrom(images, 0.4), progress=lambda *at: reports.append(at))
    walked("ddim", PointwiseStrips(3), hooks)
    assert reports == [(number, 15) for number in range(10, 16)]
