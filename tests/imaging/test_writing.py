from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.errors import OutputError
from cascade.imaging.reading import read_image
from cascade.imaging.writing import contact_sheet, from_uint8, save_png, to_pil, to_uint8


def test_eight_bits_go_to_floats_and_back_unchanged():
    every = torch.arange(256, dtype=torch.uint8)
    assert to_uint8(from_uint8(every)).equal(every)
    assert from_uint8(every)[[0, 255]].tolist() == [-1.0, 1.0]


def test_values_are_rounded_to_the_nearest_and_clipped():
    step = 2 / 255
    values = torch.tensor([-9.0, -1 + 0.49 * step, -1 + 0.51 * step, 1 - 0.49 * step, 9.0])
    assert to_uint8(values).tolist() == [0, 0, 1, 255, 255]


def test_a_png_holds_the_pixels_and_the_settings(tmp_path):
    image = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = {"seed": 5, "labels": {"class": "größe, 猫"}, "steps": [50, 25]}
    save_png(to_pil(image)[0], tmp_path / "deep" / "a.png", settings)
    assert to_uint8(read_image(tmp_path / "deep" / "a.png")).equal(to_uint8(image[0]))
    with Image.open(tmp_path / "deep" / "a.png") as file:
        assert json.loads(file.text["cascade"]) == settings


def test_a_png_that_cannot_be_written_leaves_nothing_and_keeps_what_was_there(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write") as error:
        save_png(Image.new("RGB", (2, 2)), tmp_path / "file" / "a.png")
    assert "\n" not in str(error.value)
    save_png(Image.new("RGB", (2, 2), "red"), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(TypeError):
        save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png", {"bad": object()})
    assert (tmp_path / "a.png").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"file", "a.png"}


@pytest.mark.parametrize(
    ("count", "columns", "size"),
    [(1, None, (6, 4)), (5, None, (22, 10)), (6, 2, (14, 16)), (4, 6, (46, 4))],
)
def test_a_contact_sheet_shows_every_image_in_reading_order(count, columns, size):
    values = torch.linspace(-1, 0.5, count)
    images = values.view(-1, 1, 1, 1).expand(-1, 3, 4, 6)
    sheet = np.asarray(contact_sheet(images, columns=columns))
    assert sheet.shape[:2][::-1] == size
    across = columns or {1: 1, 5: 3}[count]
    cells = [
        sheet[row * 6 : row * 6 + 4, column * 8 : column * 8 + 6]
        for row, column in (divmod(number, across) for number in range(count))
    ]
    for picture, value in zip(cells, values, strict=True):
        assert (picture == int(to_uint8(value))).all()
    gaps = sheet.size // 3 - count * 24
    assert (sheet == 235).all(axis=2).sum() == gaps
