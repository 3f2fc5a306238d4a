import io

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.conditioning.faults.compression import jpeg, webp
from cascade.conditioning.jpeg_quality import (
    grid_start,
    jpeg_quality,
    quality_of_table,
    step_tables,
)
from cascade.resizing import quantise, resize


@pytest.fixture(scope="module")
def picture():
    """A picture of 128 px with edges and texture, (1, 3, H, W)."""
    draw = torch.Generator().manual_seed(0)
    smooth = resize(torch.rand(1, 3, 7, 7, generator=draw) - 0.5, (128, 128), "bicubic")
    texture = resize(torch.randn(1, 1, 60, 60, generator=draw), (128, 128), "bicubic")
    return quantise(1.2 * smooth + 0.15 * texture)


@pytest.mark.parametrize("quality", [10, 25, 50, 75, 90])
def test_the_quality_of_decoded_pixels_is_found_to_one(picture, quality):
    assert jpeg_quality(jpeg(picture, quality)[0]) == pytest.approx(quality, abs=1)


def test_pixels_that_were_never_compressed_show_none(picture):
    assert jpeg_quality(picture[0]) == 100
    assert jpeg_quality(torch.zeros(3, 40, 40)) == 100
    assert jpeg_quality(torch.zeros(1, 5, 5)) == 100
    assert jpeg_quality(webp(picture, 40)[0]) == 100


def test_a_grid_that_begins_elsewhere_is_found(picture):
    cropped = jpeg(picture, 30)[0][:, 3:, 6:]
    assert grid_start(cropped) == (5, 2)
    assert jpeg_quality(cropped) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("quality", [1, 10, 37, 50, 88, 100])
def test_the_tables_of_a_file_state_the_quality(quality):
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(file, "JPEG", quality=quality)
    table = Image.open(file).quantization[0]
    assert quality_of_table(table) == quality
    assert step_tables([quality]).flatten().sort().values.tolist() == sorted(table)
