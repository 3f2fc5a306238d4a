from __future__ import annotations

import numpy as np
import pytest
import torch

from cascade.bulk.remarks import colour_remark, model_remark, range_remark
from cascade.imaging.picture import Picture


def ramp() -> np.ndarray:
    """(60, 80) smooth brightness with some texture, in [0, 1]."""
    y, x = np.mgrid[0:60, 0:80]
    texture = np.random.default_rng(0).normal(0, 0.02, x.shape)
    return np.clip(0.1 + 0.5 * x / 80 + 0.3 * y / 60 + texture, 0, 1)


def picture(channels: np.ndarray, bits: int = 8) -> Picture:
    """A picture of (C, H, W) in [0, 1]."""
    values = (np.clip(channels, 0, 1) * (2**bits - 1)).round()
    dtype = torch.uint8 if bits == 8 else torch.uint16
    return Picture(colour=torch.from_numpy(values).to(dtype), bits=bits)


def grey() -> np.ndarray:
    return np.stack([ramp()] * 3)


def sepia() -> np.ndarray:
    return ramp() ** np.array([0.8, 1.0, 1.4])[:, None, None]


def noisy_scan() -> np.ndarray:
    return grey() + np.random.default_rng(1).normal(0, 0.04, (3, 60, 80))


def stamped() -> np.ndarray:
    pixels = grey()
    pixels[:, 5:11, 5:11] = np.array([0.7, 0.1, 0.2])[:, None, None]
    return pixels


def photograph() -> np.ndarray:
    y, x = np.mgrid[0:60, 0:80]
    shift = 0.15 * np.sin(np.stack([x / 17, y / 13, (x + y) / 23]))
    return grey() + shift


@pytest.mark.parametrize("draw", [grey, sepia, noisy_scan, stamped])
def test_grey_and_tinted_pictures_have_no_colours(draw):
    assert colour_remark(picture(draw())) == ""


@pytest.mark.parametrize("bits", [8, 16])
def test_coloured_pictures_are_remarked_on(bits):
    assert colour_remark(picture(photograph(), bits)) == (
        "has colours already; only its luminance is kept"
    )


def test_tiny_and_grey_pictures_are_no_trouble():
    assert colour_remark(picture(ramp()[None])) == ""
    assert colour_remark(picture(grey()[:, :1, :1])) == ""
    assert colour_remark(picture(np.zeros((3, 4, 4)))) == ""


def test_a_model_with_classes_was_trained_on_pictures_of_them(upsampler):
    remark = model_remark("zoo", {"upsampler": upsampler})
    assert remark.startswith("zoo was trained on images of certain classes (cat, dog); it may")


def test_a_model_without_classes_gets_no_remark():
    from cascade.conditioning.low_resolution import LowResolution
    from cascade.contract import Contract
    from cascade.diffusion.process import NoiseProcess
    from cascade.diffusion.schedule import NoiseSchedule
    from cascade.diffusion_stage import DiffusionStage
    from cascade.space import Space

    stage = DiffusionStage.build(
        Contract(Space(size_px=16), (LowResolution(size_px=8),)),
        NoiseProcess(NoiseSchedule(train_steps=10)),
        network_options={"channels": (8,), "blocks": 1},
    )
    assert model_remark("plain", {"upsampler": stage}) == ""


def test_pictures_of_16_bits_that_use_few_numbers_are_remarked_on():
    def with_values(low, high, dtype):
        values = np.linspace(low, high, 900).round().astype(dtype).reshape(1, 30, 30)
        return Picture(colour=torch.from_numpy(values), bits=16 if dtype == np.uint16 else 8)

    dark = with_values(840, 1177, np.uint16)
    assert range_remark(dark, None) == (
        "uses 840 to 1177 of 65,535, so it has almost no contrast; --range 840 1177 makes these "
        "two values black and white, and the result keeps the scale of the input"
    )
    assert range_remark(dark, (840, 1177)) == ""
    assert range_remark(dark, (840, 1000)).startswith(
        "has values outside the range, which are clipped: 5"
    )
    assert range_remark(with_values(0, 60000, np.uint16), None) == ""
    assert range_remark(with_values(3, 40, np.uint8), None) == ""
    assert range_remark(with_values(3, 40, np.uint8), (840, 1177)) == ""  # it fails instead
