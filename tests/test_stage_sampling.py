import pytest
import torch

from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError
from cascade.sampling.guidance import guide
from cascade.sampling.settings import SamplingSettings

# Convolutions and matrix products sum in another order in another batch: single roundings of 1e-7,
# which four steps of a random network enlarge. Images of different seeds differ by about 1.
SAME_IMAGE = 1e-4


@pytest.mark.parametrize("name", ["base_stage", "upsampler"])
@pytest.mark.parametrize(
    "values", [{"eta": 0.8, "guidance": 2.0}, {"sampler": "ddpm"}, {"sampler": "euler-ancestral"}]
)
def test_a_seed_gives_the_same_image_in_any_batch(
    name, values, low_res, request, labels
):  # traps 30, 31
    stage = request.getfixturevalue(name)
    settings = stage.sampling.changed(**values)

    def sample(chosen):
        image = low_res[chosen] if stage.is_upsampler else None
        seeds = [100 + i for i in chosen]
        return stage.sample(seeds, labels=labels[chosen], image=image, settings=settings)

    five = sample([0, 1, 2, 3, 4])
    assert five.shape == (5, 3, stage.contract.size_px, stage.contract.size_px)
    assert five.abs().max() <= 1
    for chosen in ([3], [4, 1]):
        torch.testing.assert_close(sample(chosen), five[chosen], rtol=0, atol=SAME_IMAGE)
    assert min((five[i] - five[j]).abs().max() for i in range(5) for j in range(i)) > 0.1


def test_streams_of_one_seed_give_different_images(base_stage):
    first, second = (base_stage.sample([1], stream=stream) for stream in ("a", "b"))
    assert (first - second).abs().max() > 0.1
    assert base_stage.sample([1], stream="a").equal(first)


def test_guidance_1_asks_for_each_image_once_and_other_scales_twice(base_stage, record, labels):
    calls = record(base_stage)
    base_stage.sample([0, 1, 2], labels=labels[:3])
    base_stage.sample([0, 1, 2], labels=labels[:3], settings=SamplingSettings(steps=4, guidance=2))
    assert [x_t.shape[0] for x_t, _, _ in calls] == [3] * 4 + [6] * 4
    x_t, t, conditions = calls[-1]
    assert x_t[:3].equal(x_t[3:])
    assert len(set(t.tolist())) == 1
    assert conditions.labels.tolist() == labels[:3].tolist() + [[-1, -1]] * 3


def test_guided_output_is_guidance_of_the_two_single_ones(base_stage, labels):
    settings = SamplingSettings(steps=1, guidance=3.0, sampler="ddim", threshold="none")
    seen = {}
    base_stage.sample([0], labels=labels[:1], settings=settings, callback=seen_at(seen))

    def single(chosen):
        kept = {}
        plain = settings.changed(guidance=1.0)
        base_stage.sample([0], labels=chosen, settings=plain, callback=seen_at(kept))
        return kept[0]

    # One step from one state: x0 is linear in the network's output, so guidance acts on it alike.
    expected = guide(single(labels[:1]), single(None), 3.0, channels=3)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)


def seen_at(kept):
    """A callback that keeps the predicted image of each step."""

    def callback(step, timestep, tensors):
        kept[step] = tensors["x0"]

    return callback


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "unipc"])
def test_variance_channels_are_not_part_of_the_image(
    base_stage, labels, record, sampler
):  # trap 11
    base_stage.process = NoiseProcess(base_stage.process.schedule, learned_variance=True)
    calls = record(base_stage)
    settings = SamplingSettings(steps=3, guidance=4.0, sampler=sampler)
    images = base_stage.sample([0, 1], labels=labels[:2], settings=settings)
    assert images.shape == (2, 3, 16, 16)
    assert {x_t.shape for x_t, _, _ in calls} == {(4, 3, 16, 16)}


def test_guidance_without_dropped_conditions_is_refused(upsampler, low_res):
    upsampler.label_drop = upsampler.image_drop = 0.0
    settings = SamplingSettings(steps=2, guidance=2.0)
    with pytest.raises(ContractError, match=r"guidance 2\.0 needs"):
        upsampler.sample(range(5), image=low_res, settings=settings)


@pytest.mark.parametrize("image_drop", [0.0, 0.1])
def test_guidance_drops_what_training_dropped(upsampler, low_res, record, image_drop):
    upsampler.image_drop = image_drop
    calls = record(upsampler)
    upsampler.sample(range(5), image=low_res, settings=SamplingSettings(steps=1, guidance=2.0))
    kept, other = calls[0][2].image.chunk(2)
    assert other.equal(torch.zeros_like(kept) if image_drop else kept)
    assert calls[0][2].level[5:].tolist() == [1.0 if image_drop else 0.0] * 5


def test_sizes_follow_the_low_resolution_image_or_are_refused(upsampler, low_res):  # trap 37
    wide = low_res[:1, :, :, :12]
    assert upsampler.sample([0], image=wide).shape == (1, 3, 32, 24)
    with pytest.raises(ContractError, match=r"multiples of 4 px .* got 22x32"):
        upsampler.sample([0], image=wide[..., :11])


def test_callback_sees_every_step_and_may_change_the_image(base_stage):
    steps = []

    def callback(step, timestep, tensors):
        steps.append((step, timestep))
        return {"x_t": torch.full_like(tensors["x_t"], 0.25)} if step == 3 else None

    assert base_stage.sample([0], callback=callback).eq(0.25).all()
    assert steps == [(0, 99), (1, 74), (2, 49), (3, 24)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": None}, "needs an image to start from: 16 px"),
        ({"image": torch.zeros(2, 3, 16, 16)}, "got 2 images to start from for 1 seeds"),
        ({"image": torch.zeros(1, 1, 16, 16)}, r"must be \(B, 3, H, W\)"),
        ({"labels": torch.zeros(1, 1).long()}, r"labels must be \(1, 2\), got \(1, 1\)"),
        ({"settings": SamplingSettings(augmentation_level=0.6)}, "got 0.6"),
        ({"settings": SamplingSettings(sampler="ddpm", eta=0.5)}, "has no option 'eta'"),
        ({"settings": SamplingSettings(steps=101)}, "from 1 to 100"),
    ],
)
def test_conditions_and_settings_that_do_not_fit_are_refused(upsampler, values, message):  # trap 7
    upsampler.contract = Contract(size_px=32, low_res_px=16, augmentation_range=(0.0, 0.5))
    with pytest.raises(ContractError, match=message):
        upsampler.sample([0], **{"image": torch.zeros(1, 3, 16, 16)} | values)


def test_a_base_stage_takes_no_image_and_a_stage_without_labels_none(base_stage, labels):
    with pytest.raises(ContractError, match="base stage and takes no"):
        base_stage.sample([0], image=torch.zeros(1, 3, 16, 16))
    base_stage.labels = None
    with pytest.raises(ContractError, match="has no labels"):
        base_stage.sample([0], labels=labels[:1])


def test_settings_change_by_name_and_none_leaves_them():
    settings = SamplingSettings(steps=7)
    assert settings.changed(eta=0.5, steps=None) == SamplingSettings(steps=7, eta=0.5)
    with pytest.raises(
        ContractError, match="unknown sampling setting 'step': did you mean 'steps'"
    ):
        settings.changed(step=3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize(("strength", "calls"), [(1.0, 4), (0.5, 2), (0.25, 1), (0.01, 1)])
def test_a_given_image_is_noised_to_the_step_that_its_strength_says(
    base_stage, record, sampler, strength, calls
):
    seen = record(base_stage)
    images = torch.rand(2, 3, 16, 16) * 1.6 - 0.8
    settings = base_stage.sampling.changed(sampler=sampler, guidance=1.0)
    base_stage.sample([5, 6], settings=settings, start_from=images, strength=strength)
    assert len(seen) == calls
    x_t, t, _ = seen[0]
    assert set(t.tolist()) == {100 * calls // 4 - 1}
    noise = SeededNoise([5, 6], "sample").normal(3, 16, 16)
    assert x_t.equal(base_stage.process.schedule.add_noise(images, noise, t))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 0.0}, r"strength must be above 0 and at most 1, got 0\.0"),
        ({"strength": 1.1}, "strength must be above 0"),
        ({"start_from": torch.zeros(1, 3, 16, 16)}, r"start_from must be \(2, 3, 16, 16\), got"),
        ({"settings": SamplingSettings(steps=4, sampler="euler")}, "only the samplers ddim and"),
    ],
)
def test_starts_that_cannot_be_made_are_refused(base_stage, values, message):
    with pytest.raises(ContractError, match=message):
        base_stage.sample([1, 2], **{"start_from": torch.zeros(2, 3, 16, 16), **values})
