"""A stage that enlarges: training and sampling make its low-resolution image in the same way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cascade.conditioning.batch import Batch
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.inputs import Inputs
from cascade.resizing import quantise, resize
from cascade.sampling.settings import SamplingSettings
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising

NAME = "low_resolution"
denoising = Denoising()


@pytest.fixture
def batch(low_res, labels):
    """Four images of 32 px with labels."""
    images = resize(low_res[:4], (32, 32), "bilinear")
    return Batch(images=images, seeds=(3, 4, 5, 6), conditions={"labels": labels[:4]})


@pytest.fixture
def plain(upsampler, reconditioned):
    """The upsampler, trained without noise on its image, which it never loses."""
    return reconditioned(upsampler, NAME, augmentation_range=(0.0, 0.0), drop=0.0)


def enlarged(images):
    return F.interpolate(images, size=(32, 32), mode="bicubic")


def image_of(call):
    """The image and its level that the network got in a call."""
    _, _, signals = call
    return signals.channels[NAME].image, signals.vectors[NAME]


def test_low_resolution_images_are_made_with_the_kernel_of_the_space(plain, batch, record):
    calls = record(plain)
    denoising.loss(plain, batch)
    expected = enlarged(quantise(resize(batch.images, (16, 16), "bicubic")))
    torch.testing.assert_close(image_of(calls[0])[0], expected)


def test_low_resolution_images_of_the_batch_go_before_those_made_from_it(plain, batch, record):
    calls = record(plain)
    images = -resize(batch.images, (16, 16), "bicubic")
    conditions = {**batch.conditions, NAME: images}
    denoising.loss(plain, Batch(images=batch.images, seeds=batch.seeds, conditions=conditions))
    torch.testing.assert_close(image_of(calls[0])[0], enlarged(quantise(images)))


@pytest.fixture(params=["training", "sampling"])
def image_at(request, upsampler, reconditioned, record, labels):
    """A function (level, low_res) -> image and level that the network got, of the same seeds."""
    seeds = tuple(range(5))

    def image(level, low_res):
        stage = reconditioned(upsampler, NAME, augmentation_range=(level, level), drop=0.0)
        calls = record(stage)
        if request.param == "training":
            conditions = {"labels": labels, NAME: low_res}
            images = torch.zeros(5, 3, 32, 32)
            denoising.loss(stage, Batch(images=images, seeds=seeds, conditions=conditions))
        else:
            settings = SamplingSettings(steps=2, augmentation_level=level)
            inputs = Inputs({"labels": labels, "image": low_res})
            stage.run(seeds, inputs, run=Run(settings=settings))
        return image_of(calls[0])

    return image


@pytest.mark.parametrize("level", [0.0, 0.3, 0.9])
def test_training_and_sampling_make_the_conditioning_image_alike(image_at, low_res, level):
    """Both are cos * image + sin * noise; levels 0 and 1 show the image and the noise alone."""
    noise, _ = image_at(1.0, low_res)
    expected = enlarged(quantise(low_res)) * math.cos(level * math.pi / 2)
    expected = expected + noise * math.sin(level * math.pi / 2)
    torch.testing.assert_close(image_at(level, low_res)[0], expected, rtol=0, atol=1e-5)


def test_the_network_gets_the_level_of_the_noise(image_at, low_res):
    for level in (0.0, 0.3, 1.0):
        assert image_at(level, low_res)[1].tolist() == pytest.approx([level] * 5)


def test_level_1_is_normal_noise_that_hides_the_image(image_at, low_res):
    noise, _ = image_at(1.0, low_res)
    torch.testing.assert_close(noise, image_at(1.0, -low_res)[0], rtol=0, atol=1e-6)
    small = F.interpolate(noise, size=(16, 16), mode="area")
    assert small.mean().abs() < 0.05
    correlation = torch.corrcoef(small.flatten(1)) - torch.eye(5)
    assert correlation.abs().max() < 0.2  # each image has noise of its own
    neighbours = torch.stack([noise[..., ::2].flatten(), noise[..., 1::2].flatten()])
    assert torch.corrcoef(neighbours)[0, 1] > 0.5  # drawn at 16 px and enlarged with the image


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_the_image_is_noised_once_and_shared_by_all_steps_and_both_halves(
    upsampler, reconditioned, low_res, record, sampler, labels
):
    stage = reconditioned(upsampler, NAME, drop=0.0)
    calls = record(stage)
    settings = SamplingSettings(steps=5, guidance=3.0, augmentation_level=0.5, sampler=sampler)
    inputs = Inputs({"labels": labels, "image": low_res})
    stage.run(range(5), inputs, run=Run(settings=settings))
    first = image_of(calls[0])[0][:5]
    assert len(calls) >= 5
    for call in calls:
        image, level = image_of(call)
        assert image.equal(torch.cat([first, first]))
        assert level.tolist() == [0.5] * 10


def test_blur_is_for_training_only(plain, reconditioned, batch, low_res, record, labels):
    inputs = Inputs({"labels": labels, "image": low_res})
    blurring = reconditioned(plain, NAME, blur_probability=1.0)
    assert blurring.run([0] * 5, inputs).equal(plain.run([0] * 5, inputs))
    images = []
    for stage in (blurring, plain):
        calls = record(stage)
        denoising.loss(stage, batch)
        images.append(image_of(calls[0])[0])
    blurred, sharp = images
    assert blurred.var() < 0.95 * sharp.var()


def test_degraded_images_are_for_training_only_and_rounded_as_the_condition_states(
    plain, reconditioned, batch, low_res, record, labels
):
    degradation = Degradation(compression={"probability": 0.0})  # which would round
    inputs = Inputs({"labels": labels, "image": low_res})
    sampled = plain.run([0] * 5, inputs)
    stages = [
        reconditioned(plain, NAME, degradation=degradation, quantised=quantised)
        for quantised in (True, False)
    ]
    assert stages[0].run([0] * 5, inputs).equal(sampled)
    clean, images = [], []
    for stage in stages:
        clean.append(stage.contract.inputs_of(batch).get("image"))
        calls = record(stage)
        denoising.loss(stage, batch)
        images.append(image_of(calls[0])[0])
    damage = degradation.degrade(batch.images, clean[0], "bicubic", batch.seeds).images
    raw_damage = degradation.degrade(batch.images, clean[1], "bicubic", batch.seeds).images
    torch.testing.assert_close(images[0], enlarged(quantise(damage)), rtol=0, atol=1e-5)
    torch.testing.assert_close(images[1], enlarged(raw_damage), rtol=0, atol=1e-5)
    assert (damage - clean[0]).abs().mean() > 0.02
    degraded = stages[0].contract.inputs_of(batch, degraded=True).get("image")
    torch.testing.assert_close(enlarged(degraded), images[0], rtol=0, atol=1e-5)


def test_degradation_changes_no_other_draw(upsampler, reconditioned, batch, record):
    results = []
    for stage in (upsampler, reconditioned(upsampler, NAME, degradation=Degradation())):
        calls = record(stage)
        denoising.loss(stage, batch)
        results.append(calls[0])
    (x_t, t, clean), (x_t_too, t_too, degraded) = results
    assert x_t.equal(x_t_too)
    assert t.equal(t_too)
    assert clean.vectors[NAME].equal(degraded.vectors[NAME])
    assert not clean.channels[NAME].image.equal(degraded.channels[NAME].image)
