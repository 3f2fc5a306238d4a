"""A stage that colours: it takes the luminance of an image of its own size."""

import pytest
import torch

from cascade.conditioning.luminance import luminance
from cascade.resizing import quantise
from cascade.contract import Contract
from cascade.conditioning.batch import Batch
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.settings import SamplingSettings
from cascade.stage import Stage


@pytest.fixture
def images():
    """Two colour images of 16 px, off the 8-bit grid."""
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1.9 - 0.95


@pytest.fixture
def batch(images, labels):
    return Batch(images=images, seeds=(3, 4), labels=labels[:2])


def test_training_and_sampling_take_the_same_luminance(
    colouriser, images, batch, record, labels
):  # traps 16 and 35
    colouriser.contract = Contract(size_px=16, takes="grey")
    colouriser.image_drop = 0.0
    calls = record(colouriser)
    colouriser.loss(batch)
    for given in (images, luminance(images), luminance(images).expand(2, 3, 16, 16)):
        colouriser.sample([3, 4], labels=labels[:2], image=given)
    wanted = quantise(luminance(images))
    assert wanted.shape == (2, 1, 16, 16)
    for _, _, conditions in calls:
        assert conditions.image.equal(wanted)
        assert conditions.level.tolist() == [0.0, 0.0]


def test_the_result_depends_on_luminance_alone(colouriser, images):
    given = colouriser.sample([1, 2], image=images)
    other = (images + 0.1 * torch.tensor([0.587, -0.299, 0.0]).view(3, 1, 1)).clamp(-1, 1)
    assert (other - images).abs().max() > 0.02
    assert colouriser.sample([1, 2], image=other).allclose(given, atol=0.05)
    assert not colouriser.sample([1, 2], image=-images).allclose(given, atol=0.2)


def test_level_noise_and_drop_act_on_the_grey_image(colouriser, batch, images, record):
    calls = record(colouriser)
    colouriser.image_drop = 1.0
    colouriser.loss(batch)
    assert not calls[0][2].image.any()
    assert calls[0][2].level.tolist() == [1.0, 1.0]
    settings = SamplingSettings(steps=1, guidance=2.0, augmentation_level=0.5)
    colouriser.sample([1, 2], image=images, settings=settings)
    kept, dropped = calls[1][2].image.chunk(2)
    assert not dropped.any()
    difference = kept - 2**-0.5 * quantise(luminance(images))
    assert difference.std() == pytest.approx(2**-0.5, rel=0.1)


@pytest.mark.parametrize("size", [(8, 24), (12, 8), (16, 16)])
def test_any_size_that_the_network_takes_is_coloured(colouriser, size):
    assert colouriser.sample([0], image=torch.zeros(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "needs an image to start from: grey 16 px"),
        (torch.zeros(1, 4, 16, 16), r"to colour must be \(B, 1, H, W\).*got \(1, 4, 16, 16\)"),
        (torch.zeros(1, 1, 16, 18), r"multiples of 4 px for this network, got 18x16; pad or crop"),
        (torch.zeros(2, 1, 16, 16), "got 2 images to start from for 1 seeds"),
    ],
)
def test_images_that_cannot_be_coloured_are_refused(colouriser, image, message):
    with pytest.raises(ContractError, match=message):
        colouriser.sample([0], image=image)


def test_blur_is_for_low_resolution_images_only():
    with pytest.raises(ContractError, match="blur_probability and degradation are for stages that"):
        Stage.build(
            Contract(size_px=16, takes="grey"),
            NoiseProcess(NoiseSchedule(train_steps=10)),
            network_options={"channels": (8,), "blocks": 1},
            blur_probability=0.5,
        )
