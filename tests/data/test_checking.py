from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.data.checking import NAMED_CLASSES, check_images
from cascade.data.folder import FolderSource
from cascade.data.preparation import Decoding


@pytest.mark.parametrize("workers", [0, 2])
def test_everything_that_is_wrong_is_named(pictures, tmp_path, workers):
    folder = tmp_path / "in"
    shutil.copytree(pictures, folder)
    (folder / "red" / "bad.png").write_bytes(b"no image")
    (folder / "blue" / "0.json").write_text("{")
    shutil.copy(folder / "red" / "0.png", folder / "red-dot" / "copy.png")
    Image.new("RGB", (50, 12)).save(folder / "flat.png")
    calls = []
    report = check_images(
        FolderSource(folder), size_px=16, workers=workers, progress=lambda *n: calls.append(n)
    )
    assert report.images == 21
    assert calls == [("reading images", number, 21) for number in range(1, 22)]
    assert [line.partition(": ")[0] for line in report.broken] == [
        str(folder / "blue" / "0.json"),
        str(folder / "red" / "bad.png"),
    ]
    assert report.too_small == [f"{folder / 'flat.png'}: 50x12 px"]
    assert report.duplicates == [(str(folder / "red/0.png"), str(folder / "red-dot/copy.png"))]
    assert report.labels == {"class": Counter({"blue": 5, "red": 6, "red-dot": 7})}
    assert report.sizes_px == {(36, 40): 18, (50, 12): 1}
    assert report.lines()[-1] == "21 images, 2 broken, 1 too small, 1 duplicated"
    assert f"too small: {folder / 'flat.png'}: 50x12 px" in report.lines()
    assert report.lines()[-7:-1] == [
        "class:   red-dot 7, red 6, blue 5",
        "formats: PNG",
        "modes:   RGB, 8 bits, 3 channels",
        "pages:   1 in each file",
        "values:  0 to 255 of 255",
        "sizes:   shorter side 12 to 36 px, median 36; most common 36x40 (18)",
    ]


def test_of_many_classes_the_most_common_are_named_unless_all_are_asked_for(tmp_path):
    for number in range(NAMED_CLASSES + 3):
        folder = tmp_path / f"kind-{number:02}"
        folder.mkdir()
        for copy in range(2 if number == NAMED_CLASSES else 1):
            Image.new("RGB", (4, 4)).save(folder / f"{copy}.png")
    report = check_images(FolderSource(tmp_path))
    (line,) = [each for each in report.lines(hint="; more") if each.startswith("class:")]
    assert line.startswith("class:   13 classes: kind-10 2, kind-00 1, kind-01 1, ")
    assert line.endswith(", kind-08 1, …; more")
    (line,) = [each for each in report.lines(verbose=True) if each.startswith("class:")]
    assert line.count("kind-") == NAMED_CLASSES + 3


def test_without_a_size_nothing_is_too_small_and_captions_are_no_classes(tmp_path):
    Image.new("RGB", (5, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a caption")
    Image.new("RGB", (3, 5)).save(tmp_path / "b.png")
    report = check_images(FolderSource(tmp_path))
    assert report.too_small == []
    assert report.unlabelled == {}
    assert report.labels == {}


def write_frame(path, low, high, dtype=np.uint16, *, outliers=()):
    """A grey frame of 50x50 px with all numbers between two, and a few others."""
    frame = np.linspace(low, high, 2500).round()
    frame[: len(outliers)] = outliers
    tifffile.imwrite(path, frame.astype(dtype).reshape(50, 50))


@pytest.mark.parametrize(
    ("low", "high", "dtype", "outliers", "warning"),
    [
        (840, 1177, np.uint16, (), "values 840 to 1177 of 65,535 in 1 image"),
        (0, 4095, np.uint16, (), "values 0 to 4095 of 65,535 in 1 image"),
        (64500, 65535, np.uint16, (), "values 64500 to 65535 of 65,535 in 1 image"),
        (3, 40, np.uint8, (), "values 3 to 40 of 255 in 1 image"),
        (0, 65535, np.uint16, (), None),
        (60, 200, np.uint8, (), None),
        (900, 900, np.uint16, (), None),
        (840, 1177, np.uint16, (0, 65535), "in 1 image, apart from a few pixels (0 to 65535)"),
        (840, 1177, np.uint16, (0, 4095), "in 1 image, apart from a few pixels (0 to 4095)"),
    ],
)
def test_images_that_use_little_of_their_numbers_are_pointed_out(
    tmp_path, low, high, dtype, outliers, warning
):
    write_frame(tmp_path / "a.tif", low, high, dtype, outliers=outliers)
    report = check_images(FolderSource(tmp_path))
    warnings = report.warnings("; use {low}-{high}")
    if warning is None:
        assert warnings == []
        return
    (line,) = warnings
    assert warning in line
    assert ", so they have almost no contrast; use " in line
    assert f"warning: {line}" in report.lines(advice="; use {low}-{high}")
    named = [int(number) for number in line.rpartition(" ")[2].split("-")]
    assert abs(named[0] - low) <= 2
    assert abs(named[1] - high) <= 2


def test_numbers_outside_a_stated_range_are_counted_and_nothing_else_is_warned_of(tmp_path):
    write_frame(tmp_path / "a.tif", 840, 1177)
    write_frame(tmp_path / "b.tif", 840, 1000)
    report = check_images(FolderSource(tmp_path), decoding=Decoding((840, 1000)))
    (line,) = report.warnings()
    assert line.startswith("1 image with values outside the range, which are clipped: up to 52.")
    assert f"warning: {line}; more" in report.lines(hint="; more")
    (clipped,) = (line for line in report.lines(verbose=True) if line.startswith("clipped: "))
    assert clipped.startswith(f"clipped: {tmp_path / 'a.tif'}: 52.")


def test_dark_images_that_differ_only_in_their_16_bits_are_no_duplicates(tmp_path):
    write_frame(tmp_path / "a.tif", 840, 850)
    write_frame(tmp_path / "b.tif", 841, 851)
    shutil.copy(tmp_path / "a.tif", tmp_path / "c.tif")
    report = check_images(FolderSource(tmp_path))
    assert report.duplicates == [(str(tmp_path / "c.tif"), str(tmp_path / "a.tif"))]


def test_formats_have_the_names_that_people_use(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp")
    assert check_images(FolderSource(tmp_path)).contents.facts()["formats"] == "WebP"


def test_formats_modes_and_pages_are_counted(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    rgb = Image.fromarray(pixels[..., :3])
    rgb.save(tmp_path / "rgb.jpg")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(pixels[..., 0] > 99).save(tmp_path / "one.png")
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels, "CMYK").save(tmp_path / "cmyk.jpg")
    rgb.quantize(256).save(tmp_path / "palette.png")
    tifffile.imwrite(tmp_path / "deep.tif", np.stack([pixels[..., :3]] * 3) * np.uint16(257))
    facts = check_images(FolderSource(tmp_path)).contents.facts()
    assert facts["formats"] == "PNG (4), JPEG (2), TIFF (1)"
    assert set(facts["modes"].split("; ")) == {
        "RGB, 8 bits, 3 channels (1)",
        "greyscale, 8 bits, 1 channel (1)",
        "greyscale, 1 bit, 1 channel (1)",
        "RGB with alpha, 8 bits, 4 channels (1)",
        "CMYK, 8 bits, 4 channels (1)",
        "palette, 8 bits, 1 channel (1)",
        "RGB, 16 bits, 3 channels (1)",
    }
    assert facts["pages"] == "up to 3, several in 1 (the first one is used)"


def test_a_damaged_page_behind_the_first_is_a_warning_that_names_it(tmp_path):
    pages = np.random.default_rng(0).integers(0, 256, (3, 24, 16, 3), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "cut.tif") as writer:  # the pixels of a page end the file
        for page in pages:
            writer.write(page, photometric="rgb", rowsperstrip=8, metadata=None)
    shutil.copy(tmp_path / "cut.tif", tmp_path / "whole.tif")
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / "cut.png", save_all=True, append_images=others)
    for name, missing in (("cut.tif", 100), ("cut.png", 300)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-missing])
    report = check_images(FolderSource(tmp_path), duplicates=False, all_pages=True)
    assert report.broken == []
    assert report.images == report.contents.pages[3] == 3
    png, tiff = report.contents.damaged_pages
    assert png.startswith(f"{tmp_path / 'cut.png'}: frame 3: not a readable image")
    assert tiff.startswith(f"{tmp_path / 'cut.tif'}: page 3: not a readable image (truncated: 1")
    (warning,) = report.warnings(hint="; more")
    start = "a later page is damaged (the first one is used): "
    assert warning == f"{start}{png.rstrip('.')}, and 1 image more; more"
    assert f"damaged page: {tiff}" in report.lines(verbose=True)
    fast = check_images(FolderSource(tmp_path), duplicates=False)
    assert fast.contents.damaged_pages == []
