"""What a stage draws: seeds, guidance, starting images, and what it refuses."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import final

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.networks.stage_network import PlainNetwork
from cascade.sampling.guidance import guide
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.walk import Hooks, StartFrom
from cascade.space import Space
from cascade.stage import Run

# Convolutions and matrix products sum in another order in another batch: single roundings of 1e-7,
# which four steps of a random network enlarge. Images of different seeds differ by about 1.
SAME_IMAGE = 1e-4


def keeping(x0_of_step: dict[int, Tensor]) -> Hooks:
    """Hooks that keep the predicted image of each step."""

    def callback(step, timestep, tensors):
        x0_of_step[step] = tensors["x0"].clone()

    return Hooks(callback=callback)


# ---- seeds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base_stage", "upsampler"])
@pytest.mark.parametrize(
    "values", [{"eta": 0.8, "guidance": 2.0}, {"sampler": "ddpm"}, {"sampler": "euler-ancestral"}]
)
def test_a_seed_gives_the_same_image_in_any_batch(name, values, low_res, request, labels):
    stage = request.getfixturevalue(name)
    settings = stage.sampling.changed(**values)

    def sample(places):
        inputs = Inputs({"labels": labels[places]})
        if stage.contract.needs_image:
            inputs = inputs.with_value("image", low_res[places])
        return stage.run([100 + i for i in places], inputs, run=Run(settings=settings))

    five = sample([0, 1, 2, 3, 4])
    assert five.shape == (5, 3, *stage.space.size)
    assert five.abs().max() <= 1
    for places in ([3], [4, 1]):
        torch.testing.assert_close(sample(places), five[places], rtol=0, atol=SAME_IMAGE)
    assert min((five[i] - five[j]).abs().max() for i in range(5) for j in range(i)) > 0.1


def test_streams_of_one_seed_give_different_images(base_stage):
    first, second = (base_stage.run([1], run=Run(stream=stream)) for stream in ("a", "b"))
    assert (first - second).abs().max() > 0.1
    assert base_stage.run([1], run=Run(stream="a")).equal(first)


def test_an_image_may_be_the_user_s_or_the_previous_stage_s(upsampler, low_res):
    by_user = upsampler.run([1, 2], Inputs({"image": low_res[:2]}))
    assert upsampler.run([1, 2], previous=low_res[:2]).equal(by_user)
    both = upsampler.run([1, 2], Inputs({"image": -low_res[:2]}), low_res[:2])
    assert both.equal(by_user)  # the user's image is that of an earlier stage


# ---- guidance -----------------------------------------------------------------------------------


def test_guidance_1_asks_for_each_image_once_and_other_scales_twice(base_stage, record, labels):
    calls = record(base_stage)
    inputs = Inputs({"labels": labels[:3]})
    base_stage.run([0, 1, 2], inputs)
    base_stage.run([0, 1, 2], inputs, run=Run(settings=SamplingSettings(steps=4, guidance=2)))
    assert [x_t.shape[0] for x_t, _, _ in calls] == [3] * 4 + [6] * 4
    x_t, t, signals = calls[-1]
    assert x_t[:3].equal(x_t[3:])
    assert len(set(t.tolist())) == 1
    assert signals.vectors["labels"].tolist() == labels[:3].tolist() + [[-1, -1]] * 3


def test_guided_output_is_guidance_of_the_two_single_ones(base_stage, labels):
    settings = SamplingSettings(steps=1, guidance=3.0, sampler="ddim", threshold="none")
    guided: dict[int, Tensor] = {}
    inputs = Inputs({"labels": labels[:1]})
    base_stage.run([0], inputs, run=Run(settings=settings, hooks=keeping(guided)))

    def single(inputs):
        x0: dict[int, Tensor] = {}
        plain = settings.changed(guidance=1.0)
        base_stage.run([0], inputs, run=Run(settings=plain, hooks=keeping(x0)))
        return x0[0]

    # One step from one state: x0 is linear in the network's output, so guidance acts on it alike.
    expected = guide(single(inputs), single(Inputs()), 3.0, channels=3)
    torch.testing.assert_close(guided[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "unipc"])
def test_variance_channels_are_not_part_of_the_image(base_stage, labels, record, sampler):
    base_stage.process = NoiseProcess(base_stage.process.schedule, learned_variance=True)
    calls = record(base_stage)
    settings = SamplingSettings(steps=3, guidance=4.0, sampler=sampler)
    inputs = Inputs({"labels": labels[:2]})
    images = base_stage.run([0, 1], inputs, run=Run(settings=settings))
    assert images.shape == (2, 3, 16, 16)
    assert {x_t.shape for x_t, _, _ in calls} == {(4, 3, 16, 16)}


def test_guidance_without_dropped_conditions_is_refused(upsampler, reconditioned, low_res):
    stage = reconditioned(upsampler, "labels", drop=0.0)
    stage = reconditioned(stage, "low_resolution", drop=0.0)
    settings = SamplingSettings(steps=2, guidance=2.0)
    with pytest.raises(
        ContractError, match=r"guidance 2\.0 needs a condition that was sometimes drop"
    ):
        stage.run(range(5), Inputs({"image": low_res}), run=Run(settings=settings))
    with pytest.raises(
        ContractError, match=r"guidance 2\.0 needs a condition that was sometimes drop"
    ):
        stage.with_sampling(settings)


@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_guidance_drops_what_training_dropped(upsampler, reconditioned, low_res, record, drop):
    stage = reconditioned(upsampler, "low_resolution", drop=drop)
    calls = record(stage)
    settings = SamplingSettings(steps=1, guidance=2.0)
    stage.run(range(5), Inputs({"image": low_res}), run=Run(settings=settings))
    signals = calls[0][2]
    kept, without = signals.channels["low_resolution"].image.chunk(2)
    assert without.equal(torch.zeros_like(kept) if drop else kept)
    assert signals.vectors["low_resolution"][5:].tolist() == [1.0 if drop else 0.0] * 5


# ---- guidance in an interval --------------------------------------------------------------------


class Interval:
    """Samples with guidance 3 in an interval of sigma / alpha, and counts guided calls."""

    def __init__(self, stage: DiffusionStage, labels: Tensor) -> None:
        self.stage, self.inputs = stage, Inputs({"labels": labels[:2]})

    def images(self, **values) -> Tensor:
        settings = self.stage.sampling.changed(steps=8, sampler="ddpm", **values)
        return self.stage.run([0, 1], self.inputs, run=Run(settings=settings))

    def sigmas(self) -> list[float]:
        """sigma / alpha at each step."""
        schedule = self.stage.process.schedule
        alpha_bars = [schedule.alpha_bar_at(t) for t in schedule.sampling_timesteps(8)]
        return [((1 - each) / each) ** 0.5 for each in alpha_bars]


@pytest.fixture
def interval(base_stage, labels):
    return Interval(base_stage, labels)


def test_an_interval_that_covers_all_is_plain_guidance(interval):
    guided = interval.images(guidance=3.0)
    assert interval.images(guidance=3.0, guidance_interval=(0.0, float("inf"))).equal(guided)
    unguided = interval.images(guidance=1.0)
    assert (guided - unguided).abs().max() > 0.05


def test_an_interval_that_covers_nothing_is_no_guidance(interval):
    empty = (0.0, min(interval.sigmas()) / 2)
    images = interval.images(guidance=3.0, guidance_interval=empty)
    assert images.equal(interval.images(guidance=1.0))


def test_no_call_outside_the_interval_is_guided(interval, record):
    sigmas = interval.sigmas()
    bounds = (sigmas[6], sigmas[2])  # noise falls from step to step
    calls = record(interval.stage)
    interval.images(guidance=3.0, guidance_interval=bounds)
    guided = [x_t.shape[0] == 4 for x_t, _, _ in calls]
    assert guided == [bounds[0] < sigma <= bounds[1] for sigma in sigmas]
    assert guided == [False, False, True, True, True, True, False, False]


def test_an_interval_in_the_middle_gives_images_of_its_own(interval):
    sigmas = interval.sigmas()
    images = interval.images(guidance=3.0, guidance_interval=(sigmas[6], sigmas[2]))
    for guidance in (1.0, 3.0):
        assert (images - interval.images(guidance=guidance)).abs().max() > 0.01


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 12), (16, 11), (5, 16), (21, 33)])
def test_sizes_follow_the_low_resolution_image(upsampler, height, width):
    image = torch.zeros(1, 3, height, width)
    assert upsampler.run([0], Inputs({"image": image})).shape == (1, 3, 2 * height, 2 * width)


def test_an_image_that_must_be_padded_is_the_top_left_part_of_a_larger_one(upsampler, low_res):
    """The canvas is a multiple of 4 px; the image's last row and column are repeated up to it."""
    image = low_res[:1, :, :15, :13]
    padded = nn.functional.pad(image, (0, 1, 0, 1), mode="replicate")
    small, large = (upsampler.run([0], Inputs({"image": each})) for each in (image, padded))
    assert small.shape == (1, 3, 30, 26)
    assert small.equal(large[..., :30, :26])


# ---- callbacks and starting images --------------------------------------------------------------


def test_the_callback_gets_every_step_and_may_change_the_image(base_stage):
    steps = []

    def callback(step, timestep, tensors):
        steps.append((step, timestep))
        return {"x_t": torch.full_like(tensors["x_t"], 0.25)} if step == 3 else None

    images = base_stage.run([0], run=Run(hooks=Hooks(callback=callback)))
    assert images.eq(0.25).all()
    assert steps == [(0, 99), (1, 74), (2, 49), (3, 24)]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize(("strength", "count"), [(1.0, 4), (0.5, 2), (0.25, 1), (0.01, 1)])
def test_a_given_image_is_noised_to_the_step_of_its_strength(
    base_stage, record, sampler, strength, count
):
    calls = record(base_stage)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    settings = base_stage.sampling.changed(sampler=sampler, guidance=1.0)
    hooks = Hooks(start_from=StartFrom(images, strength))
    base_stage.run([5, 6], run=Run(settings=settings, hooks=hooks))
    assert len(calls) == count
    x_t, t, _ = calls[0]
    assert set(t.tolist()) == {100 * count // 4 - 1}
    noise = SeededNoise([5, 6], "sample").normal(3, 16, 16)
    assert x_t.equal(base_stage.process.schedule.add_noise(images, noise, t))


@pytest.mark.parametrize(
    ("shape", "strength", "sampler", "message"),
    [
        ((2, 3, 16, 16), 0.0, "ddim", r"strength must be above 0 and at most 1, got 0\.0"),
        ((2, 3, 16, 16), 1.1, "ddim", "strength must be above 0"),
        ((1, 3, 16, 16), 1.0, "ddim", r"to start from must be \(2, 3, 16, 16\), got \(1, 3, 16"),
        ((2, 3, 16, 16), 1.0, "euler", "samplers of diffusers cannot start"),
    ],
)
def test_starts_that_cannot_be_made_are_refused(base_stage, shape, strength, sampler, message):
    hooks = Hooks(start_from=StartFrom(torch.zeros(shape), strength))
    settings = base_stage.sampling.changed(sampler=sampler)
    with pytest.raises(ContractError, match=message):
        base_stage.run([1, 2], run=Run(settings=settings, hooks=hooks))


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "values", "message"),
    [
        ({"image": None}, {}, "needs an image to start from: 16 px"),
        ({"image": torch.zeros(2, 3, 16, 16)}, {}, "got 2 entries of image for 1 seeds"),
        ({"image": torch.zeros(1, 1, 16, 16)}, {}, r"must be \(B, 3, H, W\)"),
        ({"labels": torch.zeros(1, 1).long()}, {}, r"labels must be \(1, 2\), got \(1, 1\)"),
        ({"labels": torch.tensor([[2, 0]])}, {}, "indices of animal must be from -1 to 1"),
        ({}, {"augmentation_level": 0.6}, r"in \[0\.0, 0\.5\].*got 0\.6"),
        (
            {},
            {"sampler": "ddpm", "options": {"eta": 0.5}},
            "'eta' is an option of ddim, not of ddpm",
        ),
        ({}, {"steps": 101}, "from 1 to 100"),
    ],
)
def test_inputs_and_settings_that_do_not_fit_are_refused(
    upsampler, reconditioned, inputs, values, message
):
    stage = reconditioned(upsampler, "low_resolution", augmentation_range=(0.0, 0.5))
    given = Inputs({"image": torch.zeros(1, 3, 16, 16), **inputs})
    with pytest.raises(ContractError, match=message):
        stage.run([0], given, run=Run(settings=SamplingSettings(**values)))


@pytest.mark.parametrize(
    ("name", "fitting"), [("image", "labels"), ("mask", "labels"), ("lables", "labels")]
)
def test_inputs_that_nobody_reads_are_refused_with_what_would_fit(base_stage, name, fitting):
    inputs = Inputs({name: torch.zeros(1, 3, 16, 16)})
    with pytest.raises(ContractError, match=f"no condition that reads '{name}'.*: {fitting}"):
        base_stage.run([0], inputs)


def test_a_base_stage_follows_no_stage(base_stage):
    with pytest.raises(ContractError, match="base stage and takes no image"):
        base_stage.run([0], previous=torch.zeros(1, 3, 16, 16))


def test_a_stage_without_conditions_reads_no_input(base_stage, labels):
    network = PlainNetwork(nn.Conv2d(3, 3, 1))
    plain = DiffusionStage(network, base_stage.process, Contract(base_stage.space))
    with pytest.raises(ContractError, match="no condition that reads 'labels'; its inputs: none"):
        plain.run([0], Inputs({"labels": labels[:1]}))


def test_inputs_of_different_counts_are_refused():
    with pytest.raises(ContractError, match="got 2 for labels, 1 for image"):
        Inputs({"labels": [{}, {}], "image": torch.zeros(1, 3, 16, 16)})


# ---- settings of a stage ------------------------------------------------------------------------


def test_other_settings_leave_the_original_stage_as_it_was(base_stage):
    before = base_stage.sampling
    images = base_stage.run([0])
    other = base_stage.with_sampling(before.changed(steps=1, eta=0.5))
    assert (other.sampling.steps, other.sampling.options) == (1, {"eta": 0.5})
    assert base_stage.sampling is before
    assert base_stage.run([0]).equal(images)
    assert not other.run([0]).equal(images)
    assert other.run([0], run=Run(settings=before)).equal(images)
    with pytest.raises(AttributeError):
        base_stage.sampling = before
    with pytest.raises(FrozenInstanceError):
        base_stage.sampling.steps = 1


def test_a_stage_with_other_settings_shares_its_weights(base_stage):
    other = base_stage.with_sampling(base_stage.sampling.changed(steps=1))
    for mine, theirs in zip(base_stage.parameters(), other.parameters(), strict=True):
        assert mine is theirs
    network = base_stage.network
    other.network = PlainNetwork(nn.Conv2d(3, 3, 1))
    assert base_stage.network is network


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 101}, "from 1 to 100"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'"),
        ({"temperature": 0.5}, r"temperature 0\.5 is for stages that take an image"),
        ({"sampler": "ddpm", "options": {"eta": 0.5}}, "'eta' is an option of ddim, not of ddpm"),
    ],
)
def test_settings_that_do_not_fit_the_stage_are_refused_at_once(base_stage, values, message):
    with pytest.raises(ContractError, match=message):
        base_stage.with_sampling(SamplingSettings(**values))


# ---- the network --------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class Words(Condition):
    """A condition that is tokens."""

    name = "words"
    input_name = "words"
    recipe = dict

    def slots(self, space):
        return Slots(tokens=8)

    def of_batch(self, batch, space, noise):
        raise NotImplementedError

    def of_request(self, request):
        raise NotImplementedError

    def absent(self, signals):
        raise NotImplementedError

    def input_of(self, batch, space, *, degraded=False):
        return None


def test_a_condition_that_the_network_has_no_slot_for_is_named(base_stage, upsampler):
    images = (LowResolution(size_px=8), *base_stage.conditions)
    fields = Labels(fields={"animal": ["cat", "dog", "owl"]})
    for conditions, words in (
        (images, r"6 channels in and 3 out.* 3 and 3; .* are images: 'low_resolution' \(3\)"),
        ((fields,), r"condition 'labels' is .*\[3\].* in the contract and .*\[2, 2\].* in the net"),
        ((), "condition 'labels' is None in the contract"),
        ((*base_stage.conditions, Words()), "'words' has tokens of width 8 .* None in the network"),
    ):
        contract = Contract(base_stage.space, conditions)
        with pytest.raises(ContractError, match=words):
            DiffusionStage(base_stage.network, base_stage.process, contract)
    contract = Contract(upsampler.space, upsampler.conditions[:1])
    with pytest.raises(ContractError, match=r"3 channels in .* has 6 and 3; .* are images: none"):
        DiffusionStage(upsampler.network, upsampler.process, contract)


def test_a_network_is_built_with_a_slot_for_every_condition():
    contract = Contract(Space(size_px=16), (Words(),))
    process = NoiseProcess(NoiseSchedule(train_steps=10))
    options = {"channels": (8,), "blocks": 1}
    stage = DiffusionStage.build(contract, process, network_options=options)
    assert stage.network.token_weights


@pytest.mark.parametrize(
    ("sampler", "is_refused"), [("euler-ancestral", True), ("euler", False), ("ddpm", False)]
)
def test_a_temperature_that_the_sampler_does_not_take_is_refused_before_any_image(
    upsampler, sampler, is_refused
):
    settings = upsampler.sampling.changed(sampler=sampler, temperature=0.5)
    if not is_refused:
        assert upsampler.with_sampling(settings).sampling.temperature == 0.5
        return
    with pytest.raises(ContractError, match=r"adds noise at temperature 1 only, got 0\.5"):
        upsampler.with_sampling(settings)


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_only_pixels_are_clipped(kind):
    class Far(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))  # tells the device

        def forward(self, x_t, t, signals):
            return torch.full_like(x_t, 3.0)

    process = NoiseProcess(NoiseSchedule(), prediction="x0")
    stage = DiffusionStage(Far(), process, Contract(Space(size_px=4, kind=kind)))
    expected = torch.full((1, 3, 4, 4), 1.0 if kind == "pixels" else 3.0)
    assert torch.equal(stage.run([0]), expected)
