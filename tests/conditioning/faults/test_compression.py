import math

import pytest
import torch

from cascade.conditioning.faults.compression import Compression, jpeg, webp
from cascade.conditioning.jpeg_quality import jpeg_quality

SIZE = 64


@pytest.fixture(scope="module")
def picture():
    """A picture of 64 px with edges, (1, 3, H, W) in [-1, 1]."""
    draw = torch.Generator().manual_seed(0)
    blocks = (
        torch.rand(1, 3, 13, 13, generator=draw).repeat_interleave(5, 2).repeat_interleave(5, 3)
    )
    return blocks[..., :SIZE, :SIZE] * 1.6 - 0.8


def compressed(picture, **values):
    numbers = iter([0.5, 0.5, 0.4, 0.7, 0.0, 1.0, 0.5, 0.5, 0.9])
    return Compression(quality=(20.0, 80.0), **values).apply(picture, numbers)


def test_the_quality_is_that_of_the_last_jpeg(picture):
    once, quality = compressed(picture)
    assert quality == 20
    assert once.equal(jpeg(picture, 20))
    assert jpeg_quality(once[0]) == 20


def test_a_picture_compressed_twice_shows_two_grids(picture):
    twice, quality = compressed(picture, twice=1.0)
    assert quality == 20
    first = jpeg(torch.nn.functional.pad(picture, (5, 0, 3, 0), mode="reflect"), 80)
    assert twice.equal(jpeg(first[..., 3:, 5:], 20))


def test_webp_and_no_compression_say_so(picture):
    result, quality = compressed(picture, webp=1.0)
    assert math.isnan(quality)
    assert result.equal(webp(picture, 20))
    result, quality = compressed(picture, probability=0.0)
    assert quality == 100
    assert result is picture


def test_colour_is_sharper_at_full_resolution(picture):
    errors = [(jpeg(picture, 90, full_colour=full) - picture).square().mean() for full in (0, 1)]
    assert errors[1] < 0.8 * errors[0]
