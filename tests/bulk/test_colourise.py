"""`cascade colourise` on many pictures: what it does otherwise than `cascade upscale`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.pipeline import CascadePipeline
from cascade.restoration.colouring import Colouring, colourise_picture


@pytest.fixture
def colourise(command, colourer) -> Callable:
    """A function that runs `cascade colourise … -o out` with the tiny model."""

    def run(*arguments: object, verb: str = "colourise"):
        options = ["--model", colourer, "--device", "cpu"]
        return command(verb, *arguments, "-o", "out", *options)

    return run


def names(folder: str = "out") -> list[str]:
    return sorted(
        path.name for path in Path(folder).rglob("*") if path.is_file() and path.name[0] != "."
    )


@pytest.mark.parametrize("verb", ["colourise", "colorize"])
def test_pictures_are_coloured_as_by_the_python_api(colourise, colourer, photos, verb):
    done = colourise(
        photos / "sub" / "c.png",
        photos / "a.jpg",
        "--seed",
        2,
        "--compare",
        "--recolour",
        verb=verb,
    )
    assert (done.code, done.out) == (0, "2 coloured\n"), done.err
    assert names() == ["a.jpg", "a.jpg.jpg", "c.png", "c.png.jpg", "index.html"]
    stages = [stage for _, stage in CascadePipeline.from_pretrained(colourer).stages.items()]
    source = read_picture(photos / "sub" / "c.png")
    image = read_picture(Path("out/c.png"))
    assert image.colour.equal(colourise_picture(stages, source, Colouring(seed=2)).colour)
    recorded = read_mark(Path("out/c.png")).record
    assert recorded is not None
    assert (recorded["command"], recorded["seed"]) == ("colourise", 2)
    assert colourise(photos / "a.jpg", "--seed", 2, verb="colorize").out == (
        "0 coloured, 1 already done\n"
    )


def test_variants_are_those_of_each_seed_with_a_sheet(colourise, photos):
    done = colourise(photos / "sub", "--seed", 5, "-n", 2, "--format", "png", "--recolour")
    assert (done.code, done.out) == (0, "6 coloured\n"), done.err
    each = ["seed5", "seed6", "variants"]
    assert names() == [f"{name}-{end}.png" for name in "cde" for end in each]
    first, second = (read_picture(Path(f"out/c-seed{seed}.png")) for seed in (5, 6))
    assert not first.colour.equal(second.colour)
    colourise(photos / "sub" / "c.png", "--seed", 6, "--overwrite")
    assert read_picture(Path("out/c.png")).colour.equal(second.colour)
    sheet = Path("out/c-variants.png")
    before = sheet.stat().st_mtime_ns
    assert colourise(photos / "sub", "--seed", 5, "-n", 2, "--format", "png", "--recolour").out == (
        "0 coloured, 6 already done\n"
    )
    assert sheet.stat().st_mtime_ns == before
    sheet.unlink()
    colourise(photos / "sub", "--seed", 5, "-n", 2, "--format", "png", "--recolour")
    assert sheet.exists()


def test_hints_steer_the_colours_and_are_a_setting_of_their_own(colourise, photos):
    source = photos / "sub" / "c.png"
    assert colourise(source).code == 0
    plain = read_picture(Path("out/c.png"))
    with Image.open(source) as grey:
        hints = Image.new("RGBA", grey.size)
    hints.paste((255, 0, 0, 255), (0, 0, 10, 14))
    hints.save("hints.png")
    again = colourise(source, "--hints", "hints.png")
    assert again.code == 1
    assert "was made with hints_sha256=None (now " in again.err
    assert colourise(source, "--hints", "hints.png", "--overwrite").code == 0
    hinted = read_picture(Path("out/c.png"))
    red = [(each.colour[0].float() - each.colour[2].float())[:, :9] for each in (plain, hinted)]
    assert torch.mean(red[1] - red[0]) > 10
    settings = json.dumps(read_mark(Path("out/c.png")).record)
    assert "hints_sha256" in settings


def test_hints_are_for_the_one_picture_of_a_folder_even_if_it_has_colours(colourise, photos):
    Path("one").mkdir()
    (photos / "a.jpg").rename("one/a.jpg")
    Image.new("RGBA", (20, 14), "red").save("hints.png")
    done = colourise("one", "--hints", "hints.png")
    assert (done.code, done.out) == (0, "1 coloured\n"), done.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["photos", "--hints", "photos/a.jpg"],
            1,
            "hints need exactly one input image, got 5; name one image",
        ),
        (["photos/a.jpg", "--hints", "no.png"], 1, "no.png: cannot be read"),
        (["photos/a.jpg", "-n", "0"], 2, "should be greater than or equal"),
    ],
)
def test_wrong_usage_is_reported_before_any_work(colourise, photos, arguments, code, message):
    done = colourise(*arguments)
    assert done.code == code
    assert message in " ".join(done.err.split())
    assert not Path("out").exists()


def test_a_model_of_another_kind_is_refused(command, upscaler, colourer, photos):
    for verb, model, words in (
        ("colourise", upscaler, "no stage that takes greyscale"),
        ("upscale", colourer, "no upsampler"),
    ):
        done = command(verb, photos, "-o", "out", "--model", model)
        assert done.code == 1
        assert words in done.err
        assert not Path("out").exists()


def test_pictures_that_have_colours_are_left_out_of_many(colourise, photos):
    done = colourise(photos)
    assert (done.code, done.out, names()) == (0, "1 coloured, 4 left out\n", ["c.png"]), done.err
    assert (
        "left out: 4 images, which have colours already (--recolour includes them): "
        "photos/a.jpg, photos/b.png and 2 more; --verbose lists them\n"
    ) in done.err
    listed = colourise(photos, "-v").err
    assert all(f"left out: photos/{name}" in listed for name in ("a.jpg", "sub/d.webp"))
    assert colourise(photos / "a.jpg").out == "1 coloured\n"  # a single one, by its name


def test_parts_count_what_is_left_out(command, colourise, photos):
    assert colourise(photos, "--part", "1/1").out == "1 coloured, 4 left out\n"
    joined = command("colourise", "out", "--join")
    assert joined.code == 0
    assert "1 done, 4 left out; joined in out" in joined.out


def test_pictures_that_have_colours_are_mentioned_once(colourise, photos):
    remark = "has colours already; only its luminance is kept"
    done = colourise(photos, "--format", "png", "--recolour")
    assert (done.code, done.err.count("has colours already")) == (0, 1)
    line = f"photos/a.jpg {remark}; further such images are not mentioned\n"
    assert line in done.err
    assert colourise(photos / "sub" / "c.png", "--seed", 1, "--overwrite").err.count(remark) == 0
    again = colourise(photos, "--overwrite", "-v", "--seed", 1, "--recolour")
    assert again.err.count(remark) == 4
