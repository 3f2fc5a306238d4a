"""Files of several pages, and animations, in the bulk commands."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.bulk import commands
from cascade.bulk.ledger import ledger_file
from cascade.bulk.progress import ProgressUpdate
from cascade.bulk.searching import find_pictures
from cascade.cli.bulk_progress import progress_line
from cascade.data.shard_writing import write_tar
from cascade.errors import ContractError
from cascade.imaging.page_writing import pages_writer
from cascade.imaging.pages import FOREVER, Page, Pages
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.pipeline import CascadePipeline

DURATIONS_MS = [100.0, 70.0, 200.0]


@pytest.fixture
def upscale(command, upscaler, tmp_path, monkeypatch) -> Callable:
    """A function that runs `cascade upscale … -o out` with the tiny model, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, out: str = "out"):
        options = ["-o", out, "--model", upscaler, "--device", "cpu", "--steps", 1]
        return command("upscale", *arguments, *options)

    return run


def scene(offset_px: int = 0, *, height: int = 24) -> Picture:
    """A picture of few colours in which a square lies in the upper left."""
    pixels = np.full((height, 24, 3), (20, 90, 160), np.uint8)
    pixels[::3] = (200, 60, 40)
    pixels[1:5, 1 + offset_px : 5 + offset_px] = 255
    return Picture.from_pil(Image.fromarray(pixels))


def write(path: str, pictures: list[Picture], plays: int | None = 2) -> Path:
    """Write pages, or an animation."""
    with pages_writer(Path(path), plays=plays, pixel_bytes=0) as writer:
        for picture, duration_ms in zip(pictures, DURATIONS_MS, strict=False):
            writer.add(Page(picture=picture, duration_ms=duration_ms))
        writer.finish(None)
    return Path(path)


def three_pages() -> Path:
    """A TIFF of three pages that differ in size, colours and bits."""
    with tifffile.TiffWriter("scan.tif") as writer:
        options = {"metadata": None, "compression": "zlib"}
        for size, dtype in (((9, 14), np.uint8), ((20, 12), np.uint16), ((8, 8, 3), np.uint8)):
            values = np.arange(np.prod(size)).reshape(size) * (3 if dtype == np.uint8 else 999)
            kind = "rgb" if len(size) == 3 else "minisblack"
            writer.write(values.astype(dtype), photometric=kind, **options)
    return Path("scan.tif")


def pages_of(path: str | Path) -> list[Picture]:
    return [page.picture for page in Pages(Path(path).read_bytes(), str(path))]


# ---- what is made -------------------------------------------------------------------------------


def test_every_page_of_a_tiff_is_made_as_if_it_were_alone(upscale, upscaler):
    done = upscale(three_pages(), "--seed", 3)
    assert (done.code, done.out) == (0, "1 upscaled\n"), done.err
    assert "1 image, 3 pages, 0.007 megapixels to make" in done.err
    pipeline = CascadePipeline.from_pretrained(upscaler)
    sources, results = pages_of("scan.tif"), pages_of("out/scan.tif")
    assert [(each.size, len(each.colour), each.bits) for each in results] == [
        ((36, 56), 1, 8),
        ((80, 48), 1, 16),
        ((32, 32), 3, 8),
    ]
    for source, result in zip(sources, results, strict=True):
        assert result.colour.equal(pipeline.upscale(source, seed=3, steps=1).colour)
    settings = read_mark(Path("out/scan.tif")).record
    assert settings is not None
    assert (settings["size_px"], settings["page_count"], settings["seed"]) == ([36, 56], 3, 3)
    assert "pages" not in settings


@pytest.mark.parametrize(
    ("name", "result"),
    [("a.gif", "a.gif"), ("a.webp", "a.webp"), ("a.png", "a.png"), ("a.apng", "a.apng")],
)
def test_animations_stay_what_they_are(upscale, name, result):
    kind = "a.png" if name == "a.apng" else name
    write(kind, [scene(each) for each in (0, 4, 8)]).rename(name)
    done = upscale(name)
    assert done.code == 0, done.err
    pages = Pages(Path("out", result).read_bytes(), "x")
    assert (pages.sizes, pages.plays) == (((96, 96),) * 3, 2)
    assert [page.duration_ms for page in pages] == DURATIONS_MS
    with Image.open(Path("out", result)) as image:
        assert image.format == {"a.gif": "GIF", "a.webp": "WEBP"}.get(name, "PNG")
    assert upscale(name).out == "0 upscaled, 1 already done\n"


def test_an_animated_avif_becomes_an_animated_png(upscale):
    frames = [scene(each).to_pil() for each in (0, 4)]
    frames[0].save("a.avif", save_all=True, append_images=frames[1:], duration=[100, 70])
    assert upscale("a.avif").code == 0
    assert [page.duration_ms for page in Pages(Path("out/a.png").read_bytes(), "x")] == [100, 70]


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_equal_frames_have_equal_results(upscale, name):
    write(name, [scene()] * 3)
    assert upscale(name, "--seed", 5).code == 0
    first, *others = pages_of(f"out/{name}")
    assert len(others) == 2
    assert all(other.colour.equal(first.colour) for other in others)
    assert len(first.colour.unique()) > 20


def test_a_resting_background_does_not_flicker(upscale, upscaler):
    """Frames share one field of noise, so only what is near the moving square changes."""
    frames = [scene(each, height=64) for each in (0, 4, 8)]
    write("a.png", frames)
    assert upscale("a.png", "--seed", 0).code == 0
    pipeline = CascadePipeline.from_pretrained(upscaler)
    others = [pipeline.upscale(each, seed=n, steps=1) for n, each in enumerate(frames)]
    shared, different = flicker(pages_of("out/a.png")), flicker(others)
    assert different > 2
    assert shared < different / 10


def flicker(frames: list[Picture]) -> float:
    """Mean difference of neighbouring frames, of 255, far below the square."""
    rests = [each.colour[:, 160:].float() for each in frames]
    return float(np.mean([(b - a).abs().mean() for a, b in pairwise(rests)]))


def test_format_turns_animations_into_others_but_pages_into_no_animation(upscale):
    write("a.webp", [scene(), scene(4)])
    three_pages()
    for image_format, suffix in (("png", ".png"), ("tiff", ".tif")):
        done = upscale("a.webp", "--format", image_format)
        assert done.code == 0, done.err
        assert len(pages_of(next(Path("out").glob(f"a{suffix}*")))) == 2
        assert ("not kept: timing of frames of 1 image" in done.err) == (image_format == "tiff")
    done = upscale("a.webp", "scan.tif", "--format", "jpeg")
    assert (done.code, done.out) == (1, "0 upscaled, 2 failed\n")
    for name, ways in (("a.webp", "PNG, WebP or TIFF"), ("scan.tif", "TIFF")):
        assert f"failed: {name}: cannot write out/{name.split('.')[0]}.jpg: JPEG holds" in done.err
        assert f"write {ways}, or take the first alone" in done.err
    done = upscale("scan.tif", "--format", "webp")
    assert "WebP holds several pages as an animation only, this has 3; write TIFF" in done.err
    assert not list(Path("out").glob("*.jpg")) + list(Path("out").glob("scan*"))


def test_a_gif_of_one_frame_becomes_a_png_and_cannot_be_named_gif(upscale):
    scene().to_pil().save("still.gif")
    write("moving.gif", [scene(), scene(4)])
    assert upscale("still.gif", "moving.gif").code == 0
    assert sorted(path.name for path in Path("out").glob("[a-z]*")) == ["moving.gif", "still.png"]
    assert upscale("moving.gif", out="x.gif").code == 0
    assert len(pages_of("x.gif")) == 2
    done = upscale("still.gif", out="y.gif")
    assert "cannot write y.gif: GIF is written for animations only; write PNG" in done.err


def test_animations_in_a_shard_are_animations(upscale):
    data = write("a.gif", [scene(), scene(4)]).read_bytes()
    write_tar(Path("set.tar"), [("one.gif", data), ("two.tif", three_pages().read_bytes())])
    assert upscale("set.tar").code == 0
    with tarfile.open("out/set.tar") as tar:
        tar.extractall("unpacked", filter="data")
    assert len(pages_of("unpacked/one.gif")) == 2
    assert len(pages_of("unpacked/two.tif")) == 3


# ---- the first alone ----------------------------------------------------------------------------


def test_the_first_page_alone_is_made_if_asked_for(upscale, draw):
    write("a.gif", [scene(), scene(4)])
    draw(Path("b.png"))
    done = upscale("a.gif", three_pages(), "b.png", "--pages", "first")
    assert (done.code, done.out) == (0, "3 upscaled\n"), done.err
    assert "3 images, 0.02 megapixels" in done.err
    assert sorted(path.name for path in Path("out").glob("[a-z]*")) == [
        "a.png",
        "b.png",
        "scan.tif",
    ]
    assert len(pages_of("out/scan.tif")) == 1
    assert read_mark(Path("out/scan.tif")).record["pages"] == "first"
    assert "pages" not in read_mark(Path("out/b.png")).record


def test_pictures_of_one_page_are_done_with_either_choice_and_others_are_not(upscale, draw):
    draw(Path("b.png"))
    inputs = "b.png", three_pages()
    assert upscale(*inputs).code == 0
    done = upscale(*inputs, "--pages", "first")
    assert done.out == "0 upscaled, 1 already done, 1 failed\n"
    assert "scan.tif already exists and was made with pages=all (now first)" in done.err
    assert len(pages_of("out/scan.tif")) == 3
    assert upscale(*inputs, "--pages", "first", "--overwrite").code == 0
    assert len(pages_of("out/scan.tif")) == 1
    assert upscale(*inputs, "--pages", "first").out == "0 upscaled, 2 already done\n"


# ---- going on, and failing ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "scan.tif"])
def test_a_result_that_was_cut_off_or_lost_a_page_is_noticed(upscale, name):
    if name == "scan.tif":
        three_pages()
    else:
        write(name, [scene(each) for each in (0, 4, 8)])
    assert upscale(name).code == 0
    result = Path("out", name)
    data = result.read_bytes()
    ledger_file(Path("out"), "upscale").unlink()
    assert upscale(name).out == "0 upscaled, 1 already done\n"
    for part in (0.2, 0.6, 0.95):
        result.write_bytes(data[: int(part * len(data))])
        ledger_file(Path("out"), "upscale").unlink()
        done = upscale(name)
        assert done.out == "0 upscaled, 1 failed\n", part
        assert f"out/{name} already exists and " in done.err
    assert upscale(name, "--overwrite").out == "1 upscaled\n"
    assert result.read_bytes() == data


def test_a_result_with_fewer_pages_does_not_count(upscale):
    assert upscale(three_pages()).code == 0
    record = read_mark(Path("out/scan.tif")).record
    with pages_writer(Path("out/scan.tif"), plays=None, pixel_bytes=0) as writer:
        for picture in pages_of("out/scan.tif")[:2]:
            writer.add(Page(picture=picture))
        writer.finish(record)
    done = upscale("scan.tif")
    assert "already exists and was changed to 2 pages (made with 3)" in done.err


def test_a_damaged_page_fails_the_picture_before_any_work(upscale):
    with tifffile.TiffFile(three_pages()) as file:
        start = file.pages[1].dataoffsets[0]  # type: ignore[union-attr]
    data = bytearray(Path("scan.tif").read_bytes())
    data[start : start + 4] = b"\xff" * 4
    Path("scan.tif").write_bytes(data)
    done = upscale("scan.tif")
    assert (done.code, done.out) == (1, "0 upscaled, 1 failed\n")
    (line,) = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: scan.tif: page 2: not a readable image (")
    assert not [path for path in Path("out").iterdir() if not path.name.startswith(".cascade-")]


def test_a_page_that_cannot_be_made_fails_the_picture_and_leaves_nothing(upscale, monkeypatch):

    def make(stages, pictures, *options, **further):
        if pictures[0].bits == 16:
            raise ContractError("memory is short.")
        return original(stages, pictures, *options, **further)

    original = commands.upscale_pictures
    monkeypatch.setattr(commands, "upscale_pictures", make)
    done = upscale(three_pages())
    assert "failed: scan.tif: page 2: memory is short.\n" in done.err
    assert not [path for path in Path("out").iterdir() if not path.name.startswith(".cascade-")]


def test_a_log_tells_which_page_it_is():

    update = ProgressUpdate(0, 2, "scan.tif", 0.5, page="page 2 of 3")
    assert progress_line(update) == "0 of 2 images, scan.tif 50% (page 2 of 3)"


# ---- sheets, variants and hints -----------------------------------------------------------------


def test_sheets_show_the_first_page(upscale):
    assert upscale(three_pages(), "--compare").code == 0
    assert Path("out/compare/scan.tif.jpg").is_file()
    assert "scan.tif" in Path("out/compare/index.html").read_text()


@pytest.fixture
def colourise(command, colourer, tmp_path, monkeypatch) -> Callable:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object):
        options = ["--model", colourer, "--device", "cpu", "--steps", 1]
        return command("colourise", *arguments, "-o", "out", *options)

    return run


def test_all_frames_are_coloured_with_each_seed(colourise):
    frames = [scene(each).to_pil().convert("L") for each in (0, 4)]
    write("a.gif", [Picture.from_pil(each) for each in frames], FOREVER)
    assert colourise("a.gif", "-n", 2).code == 0
    names = sorted(path.name for path in Path("out").glob("[a-z]*"))
    assert names == ["a-seed0.gif", "a-seed1.gif", "a-variants.png"]
    first, second = (pages_of(f"out/a-seed{seed}.gif") for seed in (0, 1))
    assert [len(each.colour) for each in first] == [3, 3]
    assert not first[0].colour.equal(second[0].colour)


def test_hints_are_for_one_page(colourise):
    hints = np.zeros((9, 14, 4), np.uint8)
    hints[:5] = (220, 30, 30, 255)
    Image.fromarray(hints).save("hints.png")
    done = colourise(three_pages(), "--hints", "hints.png")
    assert done.code != 0
    assert "hints need an image of one page, but scan.tif has 3; take the first alone" in done.err
    assert colourise("scan.tif", "--hints", "hints.png", "--pages", "first").code == 0
    assert read_picture(Path("out/scan.tif")).size == (9, 14)


def test_a_gif_that_is_not_whole_in_its_first_bytes_is_still_known_as_animated(upscale):
    noise = np.random.default_rng(0).integers(0, 256, (2, 700, 700), np.uint8)
    frames = [Image.fromarray(each) for each in noise]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    write_tar(Path("set.tar"), [("one.gif", file.getvalue())])

    (picture,) = find_pictures(["set.tar"]).pictures
    assert picture.is_animated_gif()
