"""A stage that colours: it takes the luminance of an image of its own size."""

from __future__ import annotations

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.luminance import Luminance, luminance
from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.resizing import quantise
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising

NAME = "luminance"
denoising = Denoising()


@pytest.fixture
def images():
    """Two colour images of 16 px, off the 8-bit grid."""
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1.9 - 0.95


@pytest.fixture
def batch(images, labels):
    return Batch(images=images, seeds=(3, 4), conditions={"labels": labels[:2]})


def of_image(image):
    return Inputs({"image": image})


def image_of(call):
    """The image and its level that the network got in a call."""
    _, _, signals = call
    return signals.channels[NAME].image, signals.vectors[NAME]


def test_training_and_sampling_take_the_same_luminance(
    colouriser, reconditioned, images, batch, record, labels
):
    stage = reconditioned(colouriser, NAME, augmentation_range=(0.0, 0.0), drop=0.0)
    calls = record(stage)
    denoising.loss(stage, batch)
    for image in (images, luminance(images), luminance(images).expand(2, 3, 16, 16)):
        stage.run([3, 4], Inputs({"labels": labels[:2], "image": image}))
        stage.run([3, 4], Inputs({"labels": labels[:2]}), image)
    expected = quantise(luminance(images))
    assert expected.shape == (2, 1, 16, 16)
    assert len(calls) == 1 + 6 * 4
    for call in calls:
        image, level = image_of(call)
        assert image.equal(expected)
        assert level.tolist() == [0.0, 0.0]


def test_luminance_that_is_not_quantised_is_given_as_it_is(
    colouriser, reconditioned, batch, images, record
):
    stage = reconditioned(
        colouriser, NAME, augmentation_range=(0.0, 0.0), drop=0.0, quantised=False
    )
    calls = record(stage)
    denoising.loss(stage, batch)
    stage.run([3, 4], of_image(images))
    assert not quantise(luminance(images)).equal(luminance(images))
    for call in calls:
        assert image_of(call)[0].equal(luminance(images))


def test_the_result_depends_on_luminance_alone(colouriser, images):
    result = colouriser.run([1, 2], of_image(images))
    other = (images + 0.1 * torch.tensor([0.587, -0.299, 0.0]).view(3, 1, 1)).clamp(-1, 1)
    assert (other - images).abs().max() > 0.02
    assert colouriser.run([1, 2], of_image(other)).allclose(result, atol=0.05)
    assert not colouriser.run([1, 2], of_image(-images)).allclose(result, atol=0.2)


def test_level_noise_and_drop_act_on_the_grey_image(
    colouriser, reconditioned, batch, images, record
):
    stage = reconditioned(colouriser, NAME, drop=1.0)
    calls = record(stage)
    denoising.loss(stage, batch)
    dropped, level = image_of(calls[0])
    assert not dropped.any()
    assert level.tolist() == [1.0, 1.0]
    settings = SamplingSettings(steps=1, guidance=2.0, augmentation_level=0.5)
    stage.run([1, 2], of_image(images), run=Run(settings=settings))
    kept, absent = image_of(calls[1])[0].chunk(2)
    assert not absent.any()
    difference = kept - 2**-0.5 * quantise(luminance(images))
    assert difference.std() == pytest.approx(2**-0.5, rel=0.1)


@pytest.mark.parametrize("size", [(8, 24), (12, 8), (16, 16), (15, 17), (5, 3)])
def test_a_grey_image_of_any_size_is_coloured(colouriser, size):
    assert colouriser.run([0], of_image(torch.zeros(1, 1, *size))).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "needs an image to start from: greyscale 16 px"),
        (torch.zeros(1, 4, 16, 16), r"to colourise must be \(B, 1, H, W\).*got \(1, 4, 16, 16\)"),
    ],
)
def test_images_that_cannot_be_coloured_are_refused(colouriser, image, message):
    with pytest.raises(ContractError, match=message):
        colouriser.run([0], of_image(image))


def test_as_many_images_as_seeds_are_needed(colouriser):
    image = torch.zeros(2, 1, 16, 16)
    with pytest.raises(ContractError, match="got 2 entries of image for 1 seeds"):
        colouriser.run([0], of_image(image))
    with pytest.raises(ContractError, match="got 2 images to start from for 1 seeds"):
        colouriser.run([0], previous=image)


def test_blur_and_degradation_are_for_low_resolution_images_only():
    with pytest.raises(TypeError, match="blur_probability"):
        Luminance(blur_probability=0.5)
    with pytest.raises(TypeError, match="degradation"):
        Luminance(degradation=None)


def test_only_colour_stages_take_the_luminance():
    with pytest.raises(ContractError, match="colourises greyscale images needs 3 channels, got 1"):
        Contract(Space(size_px=16, channels=1), (Luminance(),))
