import pytest
import torch

from cascade.conditioning.faults.compression import jpeg
from cascade.conditioning.faults.grain import correlated
from cascade.conditioning.noise_level import noise_between, noise_level
from cascade.resizing import quantise, resize


@pytest.fixture(scope="module")
def picture():
    """A picture of 160 px with edges and smooth parts, as photographs have, (3, H, W)."""
    draw = torch.Generator().manual_seed(0)
    smooth = resize(torch.rand(1, 3, 5, 5, generator=draw) - 0.5, (160, 160), "bicubic")[0]
    edges = torch.rand(3, 10, 10, generator=draw).repeat_interleave(16, 1).repeat_interleave(16, 2)
    return quantise(smooth + 0.8 * (edges - 0.5))


def noisy(picture, std, size_px=0.0, seed=1):
    field = torch.randn(1, 1, *picture.shape[1:], generator=torch.Generator().manual_seed(seed))
    field = correlated(field, size_px) if size_px else field
    return quantise(picture + field[0] * std / 127.5)


@pytest.mark.parametrize("std", [3.0, 6.0, 12.0, 25.0])
def test_white_noise_is_measured_to_a_fifth(picture, std):
    assert noise_level(noisy(picture, std)) == pytest.approx(std, rel=0.2)


def test_a_clean_picture_measures_as_clean(picture):
    assert noise_level(picture) < 1
    assert noise_level(picture[:1]) < 1
    assert noise_level(torch.ones(3, 64, 64)) == 0
    assert noise_level(torch.zeros(3, 64, 64)) == 0


@pytest.mark.parametrize("size_px", [0.5, 1.0])
def test_grain_larger_than_a_pixel_is_measured_too(picture, size_px):
    """The finest wavelets would show less than a tenth of it at 1 px."""
    level = noise_level(noisy(picture, 16.0, size_px))
    assert 6 < level < 18


def test_detail_in_a_part_of_the_picture_is_not_taken_for_noise(picture):
    detailed = picture.clone()
    detailed[:, :, :110] = torch.rand(160, 110, generator=torch.Generator().manual_seed(2)) - 0.5
    assert noise_level(detailed) < 1.5


def test_what_two_pictures_differ_by_is_measured_alike(picture):
    other = noisy(picture, 10.0)
    assert noise_between(other, picture) == pytest.approx(10, rel=0.1)
    assert noise_between(picture, picture) == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (7, 7), (1500, 30)])
def test_pictures_of_any_size_can_be_measured(size):
    assert noise_level(torch.zeros(3, *size)) == 0


def test_a_large_picture_is_measured_at_some_places():
    field = torch.randn(1, 1200, 1400, generator=torch.Generator().manual_seed(0)) * 8 / 127.5
    assert noise_level(field) == pytest.approx(8, rel=0.2)


def test_training_tells_what_sampling_measures_after_compression(picture):
    other = jpeg(noisy(picture, 10.0)[None], 50)[0]
    assert noise_level(other) < 7  # the JPEG took most of it
    assert noise_between(other, jpeg(picture[None], 50)[0]) == pytest.approx(
        noise_level(other), rel=0.25
    )
