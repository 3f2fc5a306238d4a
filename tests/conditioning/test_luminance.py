from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.luminance import Luminance, impose_luminance, luminance
from cascade.conditioning.noised_image import augment
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Level, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.imaging.writing import from_uint8
from cascade.resizing import quantise
from cascade.space import Space

byte = st.integers(0, 255)
unit = st.floats(-1, 1, width=32)
STEP = 2 / 255  # of an 8-bit file


def colour(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


@given(st.tuples(byte, byte, byte))
def test_luminance_equals_pillow(pixel):
    picture = Image.fromarray(np.array(pixel, dtype=np.uint8).reshape(1, 1, 3))
    ours = luminance(from_uint8(torch.tensor(pixel, dtype=torch.uint8).view(1, 3, 1, 1)))
    theirs = np.array(picture.convert("L")).item() / 127.5 - 1
    assert ours.item() == pytest.approx(theirs, abs=0.51 * STEP)


@given(byte)
def test_a_grey_picture_is_its_own_luminance_as_one_channel_or_three(value):
    grey = from_uint8(torch.full((1, 1, 1, 1), value, dtype=torch.uint8))
    assert luminance(grey).equal(grey)
    assert quantise(luminance(grey.expand(1, 3, 1, 1))).equal(quantise(grey))


@given(st.tuples(unit, unit, unit), unit)
def test_imposed_luminance_is_the_one_asked_for_and_in_range(pixel, grey):
    target = torch.full((1, 1, 1, 1), grey)
    result = impose_luminance(colour(pixel), target)
    assert result.abs().max() <= 1
    torch.testing.assert_close(luminance(result), target, rtol=0, atol=1e-5)
    torch.testing.assert_close(luminance(quantise(result)), target, rtol=0, atol=0.51 * STEP)


@given(st.tuples(unit, unit, unit), unit)
def test_colour_differences_stay_or_shrink_alike_and_no_more_than_they_must(pixel, grey):
    image, target = colour(pixel), torch.full((1, 1, 1, 1), grey)
    result = impose_luminance(image, target)
    before, after = image - luminance(image), result - target
    largest = before.abs().max()
    share = (after.abs().max() / largest).item() if largest > 1e-3 else 1.0
    torch.testing.assert_close(after, share * before, rtol=0, atol=1e-3)
    if share < 0.999:  # then a channel is at its limit
        assert result.abs().max() == pytest.approx(1, abs=1e-3)


@given(st.tuples(unit, unit, unit))
def test_an_image_that_has_the_luminance_stays_as_it_is(pixel):
    image = colour(pixel)
    torch.testing.assert_close(impose_luminance(image, luminance(image)), image, rtol=0, atol=1e-5)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ContractError, match="1 or 3 channels"):
        luminance(torch.zeros(1, 4, 8, 8))
    for images, grey in (((1, 3, 8, 8), (1, 1, 8, 9)), ((1, 1, 8, 8), (1, 1, 8, 8))):
        with pytest.raises(ContractError, match="must match, got"):
            impose_luminance(torch.zeros(images), torch.zeros(grey))


# ---- the condition ------------------------------------------------------------------------------

SPACE = Space(size_px=16)
PLAIN = Luminance()
SEEDS = (3, 4)


@pytest.fixture
def batch() -> Batch:
    """Two colour images of 16 px, off the 8-bit grid."""
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1.9 - 0.95
    return Batch(images=images, seeds=SEEDS)


def stream() -> SeededNoise:
    return SeededNoise(SEEDS, "train luminance")


def received(signals: Signals) -> tuple[Tensor, Tensor]:
    """The grey image and its level."""
    assert (list(signals.channels), list(signals.vectors)) == (["luminance"],) * 2
    assert signals.channels["luminance"].scale == 1
    return signals.channels["luminance"].image, signals.vectors["luminance"]


def request(image: Tensor, **values) -> Request:
    options = {
        "inputs": Inputs({"image": image}),
        "previous": None,
        "space": SPACE,
        "size_px": (image.shape[-2], image.shape[-1]),
        "augmentation_level": 0.0,
        "noise": SeededNoise(range(len(image))),
    }
    return Request(**options | values)


def test_it_enters_as_one_channel_and_a_level():
    assert PLAIN.slots(SPACE) == Slots(channels=1, vector=Level())
    assert PLAIN.resembles_result
    assert not PLAIN.restores


def test_it_takes_grey_images_of_the_stage_s_size_from_the_previous_stage():
    space = Space(size_px=(48, 80))
    assert PLAIN.image_space(space) == Space(size_px=(48, 80), channels=1)
    assert PLAIN.description(space) == "greyscale 80x48 px"
    assert PLAIN.accepts_size((5, 700), space)
    with pytest.raises(ContractError, match="needs 3 channels, got 1"):
        PLAIN.check(Space(size_px=16, channels=1))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_has_the_size_of_the_image(channels):
    image = torch.zeros(1, channels, 5, 9)
    assert PLAIN.result_size(Inputs({"image": image}), None, SPACE) == (5, 9)
    previous = torch.zeros(1, channels, 7, 8)
    assert PLAIN.result_size(Inputs({"image": image}), previous, SPACE) == (7, 8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "needs an image to start from: greyscale 16 px"),
        (torch.zeros(1, 4, 16, 16), r"to colourise must be \(B, 1, H, W\).*got \(1, 4, 16, 16\)"),
        (torch.zeros(3, 16, 16), r"got \(3, 16, 16\)"),
    ],
)
def test_images_that_cannot_be_coloured_are_refused(image, message):
    with pytest.raises(ContractError, match=message):
        PLAIN.result_size(Inputs({"image": image}), None, SPACE)


def test_training_and_sampling_see_the_same_grey_image(batch):
    expected = quantise(luminance(batch.images))
    assert expected.shape == (2, 1, 16, 16)
    image, level = received(PLAIN.of_batch(batch, SPACE, stream()))
    assert image.equal(expected)
    assert level.tolist() == [0.0, 0.0]
    colour, grey = batch.images, luminance(batch.images)
    for source in (colour, grey, grey.expand(2, 3, 16, 16)):
        assert received(PLAIN.of_request(request(source)))[0].equal(expected)
    for degraded in (False, True):
        image = PLAIN.input_of(batch, SPACE, degraded=degraded)
        assert received(PLAIN.of_request(request(image)))[0].equal(expected)


def test_rounding_follows_the_range_or_is_left_out(batch):
    grey = luminance(batch.images)
    coarse = Space(size_px=16, range=(0, 10))
    assert PLAIN.input_of(batch, coarse).equal(quantise(grey, 11))
    assert Luminance(quantised=False).input_of(batch, SPACE).equal(grey)


def test_level_and_noise_act_on_the_grey_image(batch):
    condition = Luminance(augmentation_range=(0.2, 0.6))
    pure = Luminance(augmentation_range=(1.0, 1.0))
    image, level = received(condition.of_batch(batch, SPACE, stream()))
    noise, _ = received(pure.of_batch(batch, SPACE, stream()))
    assert level[0] != level[1]
    expected = augment(PLAIN.input_of(batch, SPACE), level, noise)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)
    options = {"augmentation_level": 0.5, "noise": SeededNoise(SEEDS, "sample")}
    image, level = received(PLAIN.of_request(request(batch.images, **options)))
    noise = SeededNoise(SEEDS, "sample").normal(1, 16, 16)
    assert image.equal(augment(PLAIN.input_of(batch, SPACE), level, noise))
    assert level.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_images_are_dropped_with_their_level_as_often_as_asked(drop):
    seeds = tuple(range(1000))
    many = Batch(images=torch.ones(1000, 3, 2, 2), seeds=seeds)
    signals = Luminance(drop=drop).of_batch(many, SPACE, SeededNoise(seeds, "train luminance"))
    image, level = received(signals)
    empty = (image == 0).flatten(1).all(dim=1)
    assert empty.equal(level == 1)
    tolerance = 5 * math.sqrt(drop * (1 - drop) / 1000)
    assert empty.float().mean().item() == pytest.approx(drop, abs=tolerance)


def test_absent_is_an_empty_image_at_the_level_of_pure_noise(batch):
    image, level = received(PLAIN.absent(PLAIN.of_batch(batch, SPACE, stream())))
    assert image.equal(torch.zeros(2, 1, 16, 16))
    assert level.equal(torch.ones(2))


def test_an_image_is_padded_to_the_canvas(batch):
    image, _ = received(
        PLAIN.of_request(request(batch.images, size_px=(20, 24), result_px=(16, 16)))
    )
    grey = PLAIN.input_of(batch, SPACE)
    assert image[..., :16, :16].equal(grey)
    assert image[..., 16:, :16].equal(grey[..., -1:, :].expand(2, 1, 4, 16))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augmentation_range": (0.0, 1.1)}, r"got \(0.0, 1.1\)"),
        ({"drop": 2}, "drop must be from 0 to 1, got 2"),
    ],
)
def test_impossible_numbers_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Luminance(**values)
