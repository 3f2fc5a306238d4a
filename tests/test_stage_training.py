"""What a stage is trained on, and that sampling makes its conditioning image in the same way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cascade.conditioning.degradation import Degradation
from cascade.resizing import quantise, resize
from cascade.contract import Contract
from cascade.conditioning.batch import Batch
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError
from cascade.sampling.settings import SamplingSettings


@pytest.fixture
def batch(low_res, labels):
    """Four images of 32 px with labels."""
    images = resize(low_res[:4], (32, 32), "bilinear")
    return Batch(images=images, seeds=(3, 4, 5, 6), labels=labels[:4])


def part(batch, chosen):
    return Batch(
        images=batch.images[chosen],
        seeds=tuple(torch.tensor(batch.seeds)[chosen].tolist()),
        labels=batch.labels[chosen],
    )


def with_range(stage, low, high):
    """The same stage, trained on other augmentation levels."""
    stage.contract = Contract(size_px=32, low_res_px=16, augmentation_range=(low, high))
    return stage


def enlarged(images):
    return F.interpolate(images, size=(32, 32), mode="bicubic")


@pytest.mark.parametrize("name", ["base_stage", "upsampler"])
def test_loss_of_an_image_depends_on_its_seed_alone(name, batch, request):  # traps 13 and 30
    stage = request.getfixturevalue(name)
    together = stage.loss(batch)
    assert together.shape == (4,)
    for i in range(4):
        alone = stage.loss(part(batch, slice(i, i + 1)))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)
    reordered = stage.loss(part(batch, [3, 0, 2, 1]))
    torch.testing.assert_close(together[[3, 0, 2, 1]], reordered, rtol=1e-4, atol=1e-6)


def test_given_timesteps_replace_the_drawn_ones_and_nothing_else(upsampler, batch, record):
    calls = record(upsampler)
    upsampler.loss(batch)
    drawn = calls[0][1]
    upsampler.loss(batch, timesteps=drawn)
    upsampler.loss(batch, timesteps=torch.tensor([0, 5, 50, 99]))
    (first, _, conditions), (again, _, _), (x_t, t, same_conditions) = calls
    assert again.equal(first)
    assert t.tolist() == [0, 5, 50, 99]
    alpha, sigma = upsampler.process.schedule.alpha_sigma(drawn)
    eps = (first[:, :3] - alpha * batch.images) / sigma
    torch.testing.assert_close(
        x_t[:, :3], upsampler.process.schedule.add_noise(batch.images, eps, t), rtol=1e-3, atol=1e-4
    )
    assert same_conditions.level.equal(conditions.level)
    assert same_conditions.image.equal(conditions.image)


def test_each_image_has_its_own_timestep_and_level(upsampler, batch, record):  # trap 13
    calls = record(upsampler)
    upsampler.loss(batch)
    ((_, t, conditions),) = calls
    assert len(set(t.tolist())) == 4
    assert len(set(conditions.level.tolist())) == 4


def test_a_batch_with_too_few_seeds_is_refused(base_stage, batch):  # trap 13
    with pytest.raises(ContractError, match="1 seeds for 4 images"):
        base_stage.loss(Batch(images=batch.images, seeds=(1,), labels=batch.labels))


class Oracle(nn.Module):
    """Knows the clean images, and predicts exactly what the process asks for."""

    def __init__(self, process, x0):
        super().__init__()
        self.process, self.x0 = process, x0

    def forward(self, x_t, t, conditions):
        return self.process.target(self.x0, self.process.eps(self.x0, x_t, t), t)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_an_oracle_has_no_loss_and_the_batch_stays_as_it_was(
    upsampler, batch, low_res, prediction
):  # trap 10
    upsampler.process = NoiseProcess(upsampler.process.schedule, prediction=prediction)
    upsampler.network = Oracle(upsampler.process, batch.images.clone())
    batch = Batch(
        images=batch.images.clone(),
        seeds=batch.seeds,
        labels=batch.labels.clone(),
        low_res=low_res[:4].clone(),
    )
    copies = [tensor.clone() for tensor in (batch.images, batch.labels, batch.low_res)]
    assert upsampler.loss(batch).max() < 1e-6
    for tensor, copied in zip((batch.images, batch.labels, batch.low_res), copies, strict=True):
        assert tensor.equal(copied)


@pytest.mark.parametrize(
    ("label_drop", "image_drop", "field", "both", "image"),
    [(0.0, 0.0, 0, 0, 0), (1.0, 1.0, 1, 1, 1), (0.2, 0.3, 0.36, 0.2 + 0.8 * 0.04, 0.3)],
)
def test_conditions_are_dropped_as_often_as_asked(
    upsampler, record, label_drop, image_drop, field, both, image
):
    upsampler.label_drop, upsampler.image_drop = label_drop, image_drop
    calls = record(upsampler)
    images = torch.ones(1000, 3, 4, 4)
    labels = torch.zeros(1000, 2, dtype=torch.long)
    upsampler.loss(Batch(images=images, seeds=tuple(range(1000)), labels=labels))
    ((_, _, conditions),) = calls
    dropped = conditions.labels == -1
    emptied = (conditions.image == 0).flatten(1).all(dim=1)
    assert emptied.equal(conditions.level == 1)
    for rate, expected in (
        *((dropped[:, i], field) for i in range(2)),
        (dropped.all(dim=1), both),
        (emptied, image),
        (emptied & dropped.all(dim=1), both * image),
    ):
        tolerance = 5 * math.sqrt(expected * (1 - expected) / 1000)
        assert rate.float().mean().item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": torch.zeros(4, 1, 32, 32)}, r"must be \(B, 3, H, W\), got \(4, 1, 32, 32\)"),
        ({"labels": None}, "class-conditional, but the batch has no labels"),
        ({"low_res": torch.zeros(4, 3, 8, 8)}, "must be 16x16 px, got 8x8"),
    ],
)
def test_batches_that_do_not_fit_are_refused(upsampler, batch, values, message):
    given = {"images": batch.images, "seeds": batch.seeds, "labels": batch.labels} | values
    with pytest.raises(ContractError, match=message):
        upsampler.loss(Batch(**given))


def test_low_resolution_images_are_made_with_the_kernel_of_the_contract(upsampler, batch, record):
    calls = record(with_range(upsampler, 0.0, 0.0))
    upsampler.image_drop = 0.0
    upsampler.loss(batch)
    expected = enlarged(quantise(resize(batch.images, (16, 16), "bicubic")))
    torch.testing.assert_close(calls[0][2].image, expected)


@pytest.fixture(params=["training", "sampling"])
def conditions_at(request, upsampler, record, labels):
    """A function (level, low_res) -> conditions that the network saw; always the same seeds."""
    calls = record(upsampler)
    upsampler.image_drop = 0.0
    seeds = tuple(range(5))

    def conditions(level, low_res):
        with_range(upsampler, level, level)
        calls.clear()
        if request.param == "training":
            images = torch.zeros(5, 3, 32, 32)
            upsampler.loss(Batch(images=images, seeds=seeds, labels=labels, low_res=low_res))
        else:
            settings = SamplingSettings(steps=2, augmentation_level=level)
            upsampler.sample(seeds, labels=labels, image=low_res, settings=settings)
        return calls[0][2]

    return conditions


@pytest.mark.parametrize("level", [0.0, 0.3, 0.9])
def test_training_and_sampling_make_the_conditioning_image_alike(
    conditions_at, low_res, level
):  # trap 16
    """Both are cos * image + sin * noise, image and noise being seen alone at levels 0 and 1."""
    noise = conditions_at(1.0, low_res).image
    expected = enlarged(quantise(low_res)) * math.cos(level * math.pi / 2)
    expected = expected + noise * math.sin(level * math.pi / 2)
    torch.testing.assert_close(conditions_at(level, low_res).image, expected, rtol=0, atol=1e-5)


def test_level_told_is_the_level_of_the_noise(conditions_at, low_res):  # trap 14
    for level in (0.0, 0.3, 1.0):
        assert conditions_at(level, low_res).level.tolist() == pytest.approx([level] * 5)


def test_level_1_is_normal_noise_that_hides_the_image(conditions_at, low_res):  # trap 14
    noise = conditions_at(1.0, low_res).image
    torch.testing.assert_close(noise, conditions_at(1.0, -low_res).image, rtol=0, atol=1e-6)
    small = F.interpolate(noise, size=(16, 16), mode="area")
    assert small.mean().abs() < 0.05
    correlation = torch.corrcoef(small.flatten(1)) - torch.eye(5)
    assert correlation.abs().max() < 0.2  # each image has noise of its own
    neighbours = torch.stack([noise[..., ::2].flatten(), noise[..., 1::2].flatten()])
    assert torch.corrcoef(neighbours)[0, 1] > 0.5  # drawn at 16 px and enlarged with the image


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_image_is_noised_once_and_shared_by_all_steps_and_both_halves(
    upsampler, low_res, record, sampler, labels
):  # trap 14
    upsampler.image_drop = 0.0
    calls = record(upsampler)
    settings = SamplingSettings(steps=5, guidance=3.0, augmentation_level=0.5, sampler=sampler)
    upsampler.sample(range(5), labels=labels, image=low_res, settings=settings)
    first = calls[0][2].image[:5]
    for _, _, conditions in calls:
        assert conditions.image.equal(torch.cat([first, first]))
        assert conditions.level.tolist() == [0.5] * 10


def test_blur_is_for_training_only(upsampler, batch, low_res, record, labels):  # trap 21
    sampled = upsampler.sample([0] * 5, labels=labels, image=low_res)
    upsampler.blur_probability = 1.0
    assert upsampler.sample([0] * 5, labels=labels, image=low_res).equal(sampled)
    calls = record(with_range(upsampler, 0.0, 0.0))
    upsampler.image_drop = 0.0
    upsampler.loss(batch)
    upsampler.blur_probability = 0.0
    upsampler.loss(batch)
    blurred, sharp = calls[0][2].image, calls[1][2].image
    assert blurred.var() < 0.95 * sharp.var()


def test_degraded_images_are_for_training_only_and_rounded_as_the_contract_says(
    upsampler, batch, low_res, record, labels
):  # trap 21
    sampled = upsampler.sample([0] * 5, labels=labels, image=low_res)
    upsampler.degradation = Degradation(jpeg_quality=None)  # which would round
    assert upsampler.sample([0] * 5, labels=labels, image=low_res).equal(sampled)
    upsampler.image_drop = 0.0
    seen = []
    for quantised in (True, False):
        upsampler.contract = Contract(size_px=32, low_res_px=16, quantised=quantised)
        seen.append(upsampler.image_of(batch))
        calls = record(upsampler)
        upsampler.loss(batch)
        seen.append(calls[0][2].image)
    clean, rounded, _, raw = seen
    damage = upsampler.degradation.apply(batch.images, clean, "bicubic", batch.seeds)
    torch.testing.assert_close(raw, enlarged(damage), rtol=0, atol=1e-5)
    torch.testing.assert_close(rounded, enlarged(quantise(damage)), rtol=0, atol=1e-5)
    assert (damage - clean).abs().mean() > 0.02


def test_degradation_changes_no_other_draw(upsampler, batch, record):
    calls = record(upsampler)
    upsampler.loss(batch)
    upsampler.degradation = Degradation()
    upsampler.loss(batch)
    (x_t, t, clean), (x_t_too, t_too, damaged) = calls
    assert x_t.equal(x_t_too)
    assert t.equal(t_too)
    assert clean.level.equal(damaged.level)
    assert not clean.image.equal(damaged.image)
