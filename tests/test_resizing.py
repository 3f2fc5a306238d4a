import numpy as np
import pytest
import torch
from PIL import Image

from cascade.resizing import quantise, resize, resized_known


@pytest.fixture
def images():
    """Four images of 16 px in [-1, 1]."""
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
def test_downscaling_does_not_alias(kernel):
    """A quarter of the side averages 16 pixels of noise; a kernel that aliases would pick a few."""
    noise = 0.3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert resize(noise, (16, 16), kernel).std() < 0.4 * noise.std()


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (24, 40), (5, 1), (40, 1), (1, 5), (1, 1)])
def test_resizing_equals_pillow(images, kernel, size):
    channel = Image.fromarray(0.5 * images[0, 0].numpy())  # half the range: bicubic overshoots
    theirs = np.array(channel.resize(size[::-1], Image.Resampling[kernel.upper()]))
    ours = resize(0.5 * images[:1, :1], size, kernel)[0, 0]
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-5)


def test_area_is_the_mean_of_whole_blocks_and_repeats_pixels(images):
    expected = images.view(4, 3, 4, 4, 4, 4).mean(dim=(3, 5))
    torch.testing.assert_close(resize(images, (4, 4), "area"), expected)
    repeated = images.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
    torch.testing.assert_close(resize(images, (48, 48), "area"), repeated)


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
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


@pytest.mark.parametrize("levels", [2, 3, 11])
def test_the_levels_are_evenly_spaced_from_end_to_end(levels):
    values = quantise(torch.linspace(-1, 1, 1001), levels).unique()
    torch.testing.assert_close(values, torch.linspace(-1, 1, levels))


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "area"])
@pytest.mark.parametrize("size", [(8, 4), (5, 7), (1, 16), (16, 16), (24, 48)])
def test_a_value_is_known_if_no_unknown_one_can_change_it(images, kernel, size):
    generator = torch.Generator().manual_seed(2)
    known = torch.rand(images.shape, generator=generator) > 0.02
    other = torch.where(known, images, -images)
    changed = resize(images, size, kernel) != resize(other, size, kernel)
    result = resized_known(known, size, kernel)
    assert result.shape == changed.shape
    assert not (result & changed).any()
    if max(size) <= 16:
        assert result.equal(~changed)
    else:  # some weights in the middle of the kernel are 0 too
        assert (~result).float().mean() < 1.5 * changed.float().mean()
