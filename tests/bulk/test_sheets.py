from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.bulk.sheets import (
    CAPTION_PX,
    GAP_PX,
    MAX_PX,
    Provenance,
    check_sheet,
    pairs_of,
    write_comparison,
    write_variants,
)
from cascade.errors import OutputError
from cascade.imaging.marks import with_mark
from cascade.imaging.picture import Picture
from cascade.inspection import inspect_picture


def picture(width: int, height: int, *, channels: int = 3, bits: int = 8) -> Picture:
    """A smooth ramp of colours."""
    across = torch.linspace(20, 230, width).expand(channels, height, width)
    down = torch.linspace(0, 20, height)[None, :, None]
    shift = 5 * torch.arange(channels)[:, None, None]
    values = (across + down - shift).round().clamp(0, 255)
    if bits == 16:
        return Picture(colour=(values * 257).to(torch.uint16), bits=16)
    return Picture(colour=values.to(torch.uint8))


def parts(path, size, *, row: int = 0, columns: int = 2) -> list[np.ndarray]:
    """The pictures in one row of a sheet, without their captions."""
    width, height = size
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    top = CAPTION_PX + row * (CAPTION_PX + height + GAP_PX)
    lefts = [column * (width + GAP_PX) for column in range(columns)]
    return [pixels[top : top + height, left : left + width] for left in lefts]


@pytest.mark.parametrize("bits", [8, 16])
def test_left_is_the_input_enlarged_and_right_the_result(tmp_path, bits):
    source, result = picture(20, 12, bits=bits), picture(80, 48, bits=bits)
    path = tmp_path / "compare" / "a.png.jpg"
    write_comparison(source, result, path, before="bicubic", caption="photo-x4, seed 0")
    left, right = parts(path, (80, 48))
    bicubic = Image.fromarray(picture(20, 12).colour.permute(1, 2, 0).numpy())
    bicubic = np.asarray(bicubic.resize((80, 48), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(left - bicubic).mean() < 1.5  # JPEG
    assert np.abs(right - picture(80, 48).colour.permute(1, 2, 0).numpy()).mean() < 1.5
    with Image.open(path) as sheet:
        assert sheet.size == (2 * 80 + GAP_PX, 48 + CAPTION_PX)
        assert np.asarray(sheet)[:CAPTION_PX].min() < 80  # the captions are there


def test_colours_stand_beside_their_grey(tmp_path):
    source = picture(60, 40)
    write_comparison(source, source, tmp_path / "a.jpg", before="grey", caption="")
    left, right = parts(tmp_path / "a.jpg", (60, 40))
    assert np.abs(left - left[..., :1]).max() <= 1
    assert np.abs(right[..., 0] - right[..., 2]).mean() > 8
    grey = np.asarray(source.to_pil().convert("L")).astype(int)
    assert np.abs(left[..., 0] - grey).mean() < 1.5


@pytest.mark.parametrize("size", [(3000, 1000), (300, 5000), (8000, 8), (2, 4000)])
def test_large_results_are_shrunk_and_their_middle_is_shown_at_full_size(tmp_path, size):
    width, height = size
    result = picture(width, height)
    small = picture(max(1, width // 4), max(1, height // 4))
    write_comparison(small, result, tmp_path / "a.jpg", before="bicubic", caption="")
    with Image.open(tmp_path / "a.jpg") as sheet:
        assert sheet.width <= MAX_PX
        assert sheet.height <= 2 * (MAX_PX + CAPTION_PX) + GAP_PX
        pixels = np.asarray(sheet).astype(int)
    if size == (3000, 1000):
        side = (MAX_PX - GAP_PX) // 2
        shown = pixels[-side:, side + GAP_PX :]
        top, left = (height - side) // 2, (width - side) // 2
        middle = result.colour[:, top : top + side, left : left + side].permute(1, 2, 0).numpy()
        assert np.abs(shown - middle).mean() < 1.5


def test_transparent_pictures_lie_on_white(tmp_path):
    colour = torch.zeros(3, 10, 10, dtype=torch.uint8)
    alpha = torch.zeros(1, 10, 10, dtype=torch.uint8)
    clear = Picture(colour=colour, alpha=alpha)
    write_comparison(clear, clear, tmp_path / "a.jpg", before="bicubic", caption="")
    assert min(part.min() for part in parts(tmp_path / "a.jpg", (10, 10))) > 250


@pytest.mark.parametrize(("count", "columns", "rows"), [(2, 2, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2)])
def test_variants_stand_side_by_side(tmp_path, count, columns, rows):
    made = [picture(30, 20) for _ in range(count)]
    made[1] = Picture(colour=255 - made[1].colour)
    write_variants([(f"seed {n}", each) for n, each in enumerate(made)], tmp_path / "v.png")
    first, second = parts(tmp_path / "v.png", (30, 20))
    assert np.array_equal(first, made[0].colour.permute(1, 2, 0).numpy())
    assert np.array_equal(second, made[1].colour.permute(1, 2, 0).numpy())
    with Image.open(tmp_path / "v.png") as sheet:
        assert sheet.size == (
            columns * (30 + GAP_PX) - GAP_PX,
            rows * (20 + CAPTION_PX + GAP_PX) - GAP_PX,
        )


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_only_sheets_are_replaced(tmp_path, name):
    def write() -> None:
        if name == "a.png":
            write_variants([("one", picture(9, 9)), ("two", picture(9, 9))], tmp_path / name)
        else:
            write_comparison(
                picture(3, 3), picture(9, 9), tmp_path / name, before="bicubic", caption=""
            )

    write()
    write()
    Image.new("RGB", (4, 4)).save(tmp_path / name)
    mine = (tmp_path / name).read_bytes()
    with pytest.raises(
        OutputError, match="already exists and is not a sheet of this command; move it away"
    ):
        write()
    assert (tmp_path / name).read_bytes() == mine


@pytest.mark.parametrize(
    ("xmp", "word"),
    [
        (None, "compositeWithTrainedAlgorithmicMedia"),
        (with_mark(None, "generated", {}), "trainedAlgorithmicMedia"),
    ],
)
def test_a_sheet_has_the_mark_of_the_results_on_it(tmp_path, xmp, word):
    provenance = Provenance(settings={"model": "photo-x4", "version": "1.2"}, xmp=xmp)
    sheet, variants = tmp_path / "a.jpg", tmp_path / "v.png"
    images = picture(5, 5), picture(9, 9)
    write_comparison(*images, sheet, before="bicubic", caption="", provenance=provenance)
    write_variants([("one", images[1]), ("two", images[1])], variants, provenance)
    for path in (sheet, variants):
        assert inspect_picture(path).mark == {
            "DigitalSourceType": word,
            "AISystemUsed": "Cascade photo-x4",
            "AISystemVersionUsed": "1.2",
        }
        check_sheet(path)  # it is still known as a sheet
    assert len(pairs_of(sheet)[1]) == 1
