import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cascade.conditioning.blur import blur
from cascade.conditioning.noised_image import augment
from cascade.resizing import quantise, resize


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
def test_downsizing_does_not_alias(kernel):  # trap 18
    """A fourth of the side averages 16 pixels of noise; a kernel that aliases would pick a few."""
    noise = 0.3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert resize(noise, (16, 16), kernel).std() < 0.4 * noise.std()


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (24, 40), (5, 1), (40, 1), (1, 5), (1, 1)])
def test_resizing_is_pillow_s(images, kernel, size):  # trap 18
    channel = Image.fromarray(0.5 * images[0, 0].numpy())  # half the range: bicubic overshoots
    theirs = np.array(channel.resize(size[::-1], Image.Resampling[kernel.upper()]))
    ours = resize(0.5 * images[:1, :1], size, kernel)[0, 0]
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-5)


def test_area_is_the_mean_of_whole_blocks(images):
    expected = images.view(4, 3, 4, 4, 4, 4).mean(dim=(3, 5))
    torch.testing.assert_close(resize(images, (4, 4), "area"), expected)


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area", "nearest"])
@pytest.mark.parametrize("size", [(8, 8), (24, 40), (16, 16)])
def test_resized_images_have_the_size_and_stay_in_range(images, kernel, size):
    resized = resize(images.sign(), size, kernel)
    assert resized.shape == (4, 3, *size)
    assert resized.abs().max() <= 1


def test_quantised_images_are_those_of_an_8_bit_file(images):
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    torch.testing.assert_close(quantise(images), pixels.float() / 127.5 - 1)
    assert quantise(quantise(images)).equal(quantise(images))
    assert quantise(3 * images).abs().max() == 1


@given(st.floats(0, 1))
def test_augmentation_mixes_image_and_noise_with_constant_variance(level):  # trap 14
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    image = augment(one, torch.tensor([level]), zero).item()
    noise = augment(zero, torch.tensor([level]), one).item()
    assert image == pytest.approx(math.cos(level * math.pi / 2), abs=1e-6)
    assert image**2 + noise**2 == pytest.approx(1, abs=1e-6)


def test_each_image_is_augmented_at_its_own_level(images):  # traps 13 and 14
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0.0, 0.25, 0.6, 1.0])
    out = augment(images, level, noise)
    assert out[0].equal(images[0])
    torch.testing.assert_close(out[3], noise[3], rtol=0, atol=1e-6)
    torch.testing.assert_close(out[1:2], augment(images[1:2], level[1:2], noise[1:2]))


def test_blur_is_a_gaussian_of_the_drawn_width(images):  # trap 21
    uniform = torch.tensor([[0.0, 0.0], [0.0, 0.5], [0.0, 1.0], [0.9, 0.5]])
    out = blur(images, uniform, probability=0.5)
    for i, sigma in enumerate((0.4, 0.5, 0.6)):
        line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0]) ** 2) / (2 * sigma**2))
        kernel = torch.outer(line, line) / line.sum() ** 2
        expected = F.conv2d(images[i][:, None], kernel[None, None])  # without the border
        torch.testing.assert_close(out[i][:, None, 1:-1, 1:-1], expected, rtol=0, atol=1e-5)
    assert out[3].equal(images[3])


@pytest.mark.parametrize(("probability", "blurred"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_blur_probability(images, probability, blurred):
    uniform = torch.tensor([[0.0, 0.5], [0.3, 0.5], [0.6, 0.5], [0.99, 0.5]])
    out = blur(images, uniform, probability)
    assert sum(not a.equal(b) for a, b in zip(out, images, strict=True)) == blurred
