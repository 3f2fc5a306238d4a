from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.blur import blur
from cascade.conditioning.degradation import Degradation
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.low_resolution import GeneratedOptions, LowResolution
from cascade.conditioning.noised_image import augment
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Level, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.resizing import quantise, resize
from cascade.space import Space

SPACE = Space(size_px=32)
PLAIN = LowResolution(size_px=16)
SEEDS = (3, 4, 5, 6)


@pytest.fixture
def batch() -> Batch:
    """Four images of 32 px, off the 8-bit grid."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 1.9 - 0.95
    return Batch(images=images, seeds=SEEDS)


def stream(name: str = "train low_resolution") -> SeededNoise:
    return SeededNoise(SEEDS, name)


def received(signals: Signals) -> tuple[Tensor, Tensor]:
    """The image and its level."""
    assert (list(signals.channels), list(signals.vectors)) == (["low_resolution"],) * 2
    return signals.channels["low_resolution"].image, signals.vectors["low_resolution"]


def request(image: Tensor, **values) -> Request:
    options = {
        "inputs": Inputs({"image": image}),
        "previous": None,
        "space": SPACE,
        "size_px": (image.shape[-2] * 2, image.shape[-1] * 2),
        "augmentation_level": 0.0,
        "noise": SeededNoise(range(len(image))),
    }
    return Request(**options | values)


# ---- what it is ---------------------------------------------------------------------------------


def test_it_enters_as_an_image_and_its_level():
    assert PLAIN.slots(SPACE) == Slots(channels=3, vector=Level())
    assert PLAIN.slots(Space(size_px=32, channels=5)).channels == 5
    assert PLAIN.resembles_result


def test_it_takes_the_same_space_at_its_own_size_from_the_previous_stage():
    condition, space = LowResolution(size_px=(12, 20)), Space(size_px=(48, 80), range=(0, 10_000))
    assert condition.image_space(space) == Space(size_px=(12, 20), range=(0, 10_000))
    assert condition.description(space) == "20x12 px"
    assert PLAIN.description(SPACE) == "16 px"
    assert condition.accepts_size((12, 20), space)
    assert not condition.accepts_size((20, 12), space)


def test_the_result_is_larger_by_the_scale_whatever_the_size_of_the_image():
    image, previous = torch.zeros(1, 3, 10, 7), torch.zeros(1, 3, 5, 16)
    assert PLAIN.result_size(Inputs({"image": image}), None, SPACE) == (20, 14)
    assert PLAIN.result_size(Inputs({"image": image}), previous, SPACE) == (10, 32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "needs an image to start from: 16 px"),
        (torch.zeros(1, 1, 16, 16), r"images must be \(B, 3, H, W\), got \(1, 1, 16, 16\)"),
        (torch.zeros(3, 16, 16), r"must be \(B, 3, H, W\), got \(3, 16, 16\)"),
    ],
)
def test_an_image_that_is_missing_or_does_not_fit_is_refused(image, message):
    for inputs, previous in ((Inputs({"image": image}), None), (Inputs(), image)):
        with pytest.raises(ContractError, match=message):
            PLAIN.result_size(inputs, previous, SPACE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size_px": 0}, "at least 1 px, got 0"),
        ({"size_px": 24}, "32x32 px must be a whole multiple of 24x24 px"),
        ({"size_px": 64}, "32x32 px must be a whole multiple of 64x64 px"),
        ({"size_px": (16, 8)}, "32x32 px must be a whole multiple of 8x16 px"),
        ({"augmentation_range": (0.5, 0.1)}, r"got \(0.5, 0.1\)"),
        ({"blur_probability": 1.5}, "blur_probability must be from 0 to 1, got 1.5"),
        ({"drop": -0.1}, "drop must be from 0 to 1, got -0.1"),
    ],
)
def test_impossible_numbers_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        LowResolution(**{"size_px": 16} | values).check(SPACE)


def test_degradation_is_for_colour_images():
    condition = LowResolution(size_px=16, degradation=Degradation())
    condition.check(SPACE)
    assert condition.restores
    assert not PLAIN.restores
    with pytest.raises(ContractError, match="for images of 3 channels, this stage has 1"):
        condition.check(Space(size_px=32, channels=1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fraction": 1.5}, "generated.fraction must be from 0 to 1, got 1.5"),
        ({"images": 0}, r"generated.images must be at least 1 .* got 0 and \(0.1, 0.5\)"),
        ({"strength": (0.0, 0.5)}, r"above 0; got 10000 and \(0.0, 0.5\)"),
        ({"strength": (0.5, 0.1)}, r"low end first and above 0; got 10000 and \(0.5, 0.1\)"),
    ],
)
def test_numbers_of_generated_images_out_of_range_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        GeneratedOptions(**values)


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_it_is_made_from_the_image_with_the_kernel_of_the_space(batch, kernel):
    space = Space(size_px=32, resize_kernel=kernel)
    image, level = received(PLAIN.of_batch(batch, space, stream()))
    assert image.equal(quantise(resize(batch.images, (16, 16), kernel)))
    assert level.tolist() == [0.0] * 4


def test_a_picture_gives_the_same_before_it_is_cropped(batch):
    whole = PLAIN.of_picture(batch.images[0], SPACE)
    assert whole.equal(received(PLAIN.of_batch(batch, SPACE, stream()))[0][0])


def test_an_image_of_the_batch_goes_before_and_is_rounded(batch):
    generated = torch.full((4, 3, 16, 16), 0.123)
    batch = replace(batch, conditions={"low_resolution": generated})
    assert received(PLAIN.of_batch(batch, SPACE, stream()))[0].equal(quantise(generated))
    raw = LowResolution(size_px=16, quantised=False)
    assert received(raw.of_batch(batch, SPACE, stream()))[0].equal(generated)
    wrong = replace(batch, conditions={"low_resolution": generated[..., :8, :8]})
    with pytest.raises(ContractError, match="must be 16x16 px, got 8x8"):
        PLAIN.of_batch(wrong, SPACE, stream())


def test_crops_have_a_smaller_image_of_the_same_scale(batch):
    crop = replace(batch, images=batch.images[..., :12, :20])
    signals = PLAIN.of_batch(crop, SPACE, stream())
    assert signals.channels["low_resolution"].scale == 2
    assert received(signals)[0].shape == (4, 3, 6, 10)


def test_rounding_is_to_whole_numbers_of_the_range(batch):
    space = Space(size_px=32, range=(0, 10))
    image, _ = received(PLAIN.of_batch(batch, space, stream()))
    assert image.equal(quantise(resize(batch.images, (16, 16), "bicubic"), 11))


def test_each_image_has_its_own_level_and_noise_that_is_kept_from_batch_to_batch(batch):
    condition = LowResolution(size_px=16, augmentation_range=(0.2, 0.6))
    image, level = received(condition.of_batch(batch, SPACE, stream()))
    assert len(set(level.tolist())) == 4
    assert 0.2 <= level.min() <= level.max() <= 0.6
    part = Batch(images=batch.images[1:2], seeds=SEEDS[1:2])
    own = SeededNoise(SEEDS[1:2], "train low_resolution")
    alone = received(condition.of_batch(part, SPACE, own))
    assert alone[0].equal(image[1:2])
    assert alone[1].equal(level[1:2])


def test_level_and_noise_are_those_of_augmentation(batch):
    condition = LowResolution(size_px=16, augmentation_range=(0.3, 0.3))
    pure = LowResolution(size_px=16, augmentation_range=(1.0, 1.0))
    image, level = received(condition.of_batch(batch, SPACE, stream()))
    noise, _ = received(pure.of_batch(batch, SPACE, stream()))
    expected = augment(condition.input_of(batch, SPACE), level, noise)
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-6)
    assert noise.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_images_are_dropped_with_their_level_as_often_as_asked(drop):
    condition = LowResolution(size_px=2, drop=drop)
    seeds = tuple(range(1000))
    many = Batch(images=torch.ones(1000, 3, 4, 4), seeds=seeds)
    image, level = received(condition.of_batch(many, Space(size_px=4), SeededNoise(seeds, "a")))
    empty = (image == 0).flatten(1).all(dim=1)
    assert empty.equal(level == 1)
    tolerance = 5 * math.sqrt(drop * (1 - drop) / 1000)
    assert empty.float().mean().item() == pytest.approx(drop, abs=tolerance)


def test_absent_is_an_empty_image_at_the_level_of_pure_noise(batch):
    signals = PLAIN.of_batch(batch, SPACE, stream())
    absent = PLAIN.absent(signals)
    image, level = received(absent)
    assert image.equal(torch.zeros(4, 3, 16, 16))
    assert level.equal(torch.ones(4))
    assert absent.channels["low_resolution"].scale == 2


def test_blur_is_drawn_from_the_stream_before_all_else(batch):
    condition = LowResolution(size_px=16, blur_probability=0.5)
    image, _ = received(condition.of_batch(batch, SPACE, stream()))
    sharp = condition.input_of(batch, SPACE)
    expected = blur(sharp, stream().uniform(2), 0.5)
    assert image.equal(expected)
    assert 0 < sum(a.equal(b) for a, b in zip(image, sharp, strict=True)) < 4


def test_degraded_images_are_rounded_as_the_settings_say_and_change_no_other_draw(batch):
    degradation = Degradation(compression={"probability": 0.0})  # which would round
    options = {"size_px": 16, "augmentation_range": (0.1, 0.4)}
    clean = resize(batch.images, (16, 16), "bicubic")
    damage = degradation.degrade(batch.images, clean, "bicubic", SEEDS).images
    assert (damage - clean).abs().mean() > 0.02
    _, level = received(LowResolution(**options).of_batch(batch, SPACE, stream()))
    pure = LowResolution(size_px=16, augmentation_range=(1.0, 1.0))
    noise, _ = received(pure.of_batch(batch, SPACE, stream()))
    condition = LowResolution(**options, degradation=degradation, quantised=False)
    image, same_level = received(condition.of_batch(batch, SPACE, stream()))
    assert same_level.equal(level)
    torch.testing.assert_close(image, augment(damage, level, noise), rtol=0, atol=1e-5)
    rounded = replace(condition, quantised=True).input_of(batch, SPACE, degraded=True)
    clean = quantise(clean)
    expected = quantise(degradation.degrade(batch.images, clean, "bicubic", SEEDS).images)
    assert rounded.equal(expected)


# ---- sampling and evaluation --------------------------------------------------------------------


@pytest.mark.parametrize("degradation", [None, Degradation()])
def test_the_input_of_a_batch_gives_sampling_what_training_saw(batch, degradation):
    condition = LowResolution(size_px=16, degradation=degradation)
    image = condition.input_of(batch, SPACE, degraded=True)
    seen, _ = received(condition.of_batch(batch, SPACE, stream()))
    sampled, level = received(condition.of_request(request(image)))
    assert sampled.equal(seen)
    assert level.tolist() == [0.0] * 4
    clean = condition.input_of(batch, SPACE)
    assert clean.equal(PLAIN.input_of(batch, SPACE))
    assert clean.equal(image) == (degradation is None)


def test_blur_and_degradation_are_for_training_only(batch):
    image = PLAIN.input_of(batch, SPACE)
    disturbed = LowResolution(size_px=16, blur_probability=1.0, degradation=Degradation())
    assert received(disturbed.of_request(request(image)))[0].equal(image)


def test_the_previous_result_goes_before_the_user_s_image_and_is_rounded(batch):
    previous = torch.full((4, 3, 16, 16), 0.123)
    image = PLAIN.input_of(batch, SPACE)
    seen, _ = received(PLAIN.of_request(request(image, previous=previous)))
    assert seen.equal(quantise(previous))
    raw = LowResolution(size_px=16, quantised=False)
    assert received(raw.of_request(request(image, previous=previous)))[0].equal(previous)


def test_one_level_of_noise_is_drawn_for_each_image_of_a_request(batch):
    image = PLAIN.input_of(batch, SPACE)
    options = {"augmentation_level": 0.4, "noise": stream("sample")}
    seen, level = received(PLAIN.of_request(request(image, **options)))
    assert level.tolist() == pytest.approx([0.4] * 4)
    noise = stream("sample").normal(3, 16, 16)
    assert seen.equal(augment(image, level, noise))


def test_an_image_is_padded_to_the_canvas(batch):
    image = PLAIN.input_of(batch, SPACE)
    seen, _ = received(PLAIN.of_request(request(image, size_px=(36, 40), result_px=(32, 32))))
    assert seen.shape == (4, 3, 18, 20)
    assert seen[..., :16, :16].equal(image)
    assert seen[..., 17, 19].equal(image[..., 15, 15])


def test_the_deviation_is_the_squared_error_of_the_downscaled_samples(batch):
    image = PLAIN.input_of(batch, SPACE)
    assert PLAIN.deviation(batch.images, image, SPACE) == {"low_res_consistency": 0.0}
    flat = torch.zeros(4, 3, 32, 32)
    brighter = PLAIN.deviation(flat + 6 / 127.5, torch.zeros(4, 3, 16, 16), SPACE)
    assert brighter["low_res_consistency"] == pytest.approx(36, rel=1e-4)
