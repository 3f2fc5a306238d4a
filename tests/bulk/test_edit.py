"""`cascade edit` on pictures: files, masks, records, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.mask import Mask
from cascade.contract import Contract
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.pipeline import CascadePipeline
from cascade.restoration.expected_error import ErrorCurve, ExpectedError, model_digest
from cascade.space import Space

CURVE = ErrorCurve(deviations=(0.0, 2.0), errors=(0.1, 4.1), correlation=0.5)


@pytest.fixture(scope="session")
def inpainter_folder(tmp_path_factory, saved_pipeline) -> str:
    """Folder of a saved pipeline that fills holes, with random weights."""
    contract = Contract(Space(size_px=32), (Mask(),))
    return saved_pipeline("fill", contract, tmp_path_factory.mktemp("model") / "tiny-fill")


@pytest.fixture
def edit(command, inpainter_folder) -> Callable:
    """A function that runs `cascade edit … -o out` with the tiny model."""

    def run(*arguments: object, out: str = "out"):
        options = ["--model", inpainter_folder, "--device", "cpu"]
        return command("edit", *arguments, "-o", out, *options)

    return run


@pytest.fixture
def mask(photos) -> Path:
    """A mask for the pictures of 20x14 px."""
    values = np.zeros((14, 20), np.uint8)
    values[3:9, 5:12] = 255
    Image.fromarray(values).save("mask.png")
    return Path("mask.png")


def test_a_picture_is_edited_as_by_the_python_api(edit, inpainter_folder, photos, mask):
    source = photos / "sub" / "c.png"
    done = edit(source, "--mask", mask, "--seed", 2, "--compare", out="out.png")
    assert (done.code, done.out) == (0, "1 edited\n"), done.err
    pipeline = CascadePipeline.from_pretrained(inpainter_folder)
    pipeline.set_progress_bar_config(disable=True)
    picture, result = read_picture(source), read_picture(Path("out.png"))
    (expected,) = pipeline.edit(picture, read_picture(mask), seed=2).images
    assert result.colour.equal(expected.colour)
    hole = read_picture(mask).colour[0] > 127
    assert result.colour[:, ~hole].equal(picture.colour[:, ~hole])
    assert not result.colour[:, hole].equal(picture.colour[:, hole])
    recorded = read_mark(Path("out.png")).record
    assert recorded is not None
    assert (recorded["command"], recorded["seed"], recorded["strength"]) == ("edit", 2, 1.0)
    assert len(recorded["mask_sha256"]) == 64
    again = edit(source, "--mask", mask, "--seed", 2, "--compare", out="out.png")
    assert again.out == "0 edited, 1 already done\n"
    other = edit(source, "--mask", mask, "--seed", 2, "--feather", 2, out="out.png")
    assert other.code == 1
    assert "was made with feather_px=0 (now 2)" in other.err


def test_scratches_are_mended_in_a_grown_mask_and_grey_pictures_stay_grey(
    command, inpainter_folder, photos, mask
):
    values = np.random.default_rng(0).integers(0, 256, (14, 20)).astype(np.uint8)
    Image.fromarray(values).convert("RGB").save("scan.png")
    options = ["--model", inpainter_folder, "--device", "cpu"]
    done = command("restore", "scan.png", "--mask", mask, "-o", "clean.png", *options)
    assert (done.code, done.out) == (0, "1 restored\n"), done.err
    result = read_picture(Path("clean.png")).colour
    hole = np.zeros((14, 20), bool)
    hole[1:11, 3:14] = True  # the mask, and 2 px around it
    assert (result.numpy()[:, ~hole] == values[~hole]).all()
    changed = (result[0].numpy() != values) & hole
    assert changed.sum() > 0.9 * hole.sum()
    assert (result == result[:1]).all()
    recorded = read_mark(Path("clean.png")).record
    assert (recorded["command"], recorded["grow_px"], recorded["stays_grey"]) == (
        "restore", 2, True
    )  # fmt: skip
    whole = command("restore", "scan.png", "-o", "whole.png", *options)
    assert whole.code == 1
    assert "scan.png: no damaged area is marked: pass --mask" in whole.err
    rehearsed = command("restore", "scan.png", "-o", "whole.png", "--dry-run", *options)
    assert (rehearsed.code, rehearsed.err) == (1, whole.err.partition("\n")[2])
    edited = command("edit", "scan.png", "--mask", mask, "-o", "edited.png", *options)
    assert edited.code == 0, edited.err
    colours = read_picture(Path("edited.png")).colour
    assert not (colours == colours[:1]).all()


def test_a_mask_is_for_all_pictures_of_its_size_and_the_others_fail(edit, photos, mask):
    rehearsed = edit(photos, "--mask", mask, "--format", "png", "--dry-run")
    assert rehearsed.code == 1
    assert "4 to be edited, 1 failed; nothing was written" in rehearsed.out
    assert "d.webp: the mask has 20x14 px, but the image has 9x31" in rehearsed.err
    done = edit(photos, "--mask", mask, "--format", "png")
    assert (done.code, done.out) == (1, "4 edited, 1 failed\n"), done.err
    assert (
        "d.webp: the mask has 20x14 px, but the image has 9x31; a mask is for images of" in done.err
    )


def test_a_mask_among_the_pictures_is_no_picture(edit, photos, mask):
    inside = photos / "mask.png"
    inside.write_bytes(mask.read_bytes())
    done = edit(photos, "--mask", inside, "--format", "png")
    assert (done.code, done.out) == (1, "4 edited, 1 failed, 1 left out\n"), done.err
    assert "left out: 1 file that is not an image (1 mask)" in done.err


def test_without_a_mask_what_is_transparent_is_filled(edit, photos):
    clear = np.full((14, 20, 4), 200, np.uint8)
    clear[..., 3] = 255
    clear[4:8, 4:8, 3] = 0
    Image.fromarray(clear).save("clear.png")
    rehearsed = edit("clear.png", photos / "a.jpg", "-n", 2, "--dry-run")
    assert rehearsed.code == 1
    assert "2 to be edited, 2 failed; nothing was written" in rehearsed.out
    assert "a.jpg: nothing to inpaint is marked: give a mask" in rehearsed.err
    done = edit("clear.png", photos / "a.jpg", "-n", 2)
    assert (done.code, done.out) == (1, "2 edited, 2 failed\n"), done.err
    assert "a.jpg: nothing to inpaint is marked: give a mask" in done.err
    first, second = (read_picture(Path(f"out/clear-seed{seed}.png")) for seed in (0, 1))
    assert first.alpha is None
    assert not first.colour.equal(second.colour)
    assert Path("out/clear-variants.png").exists()


def test_a_picture_grows_and_records_by_how_much(edit, photos):
    done = edit(photos / "sub" / "c.png", "--uncrop", "4,0,2,6", out="wide.png")
    assert done.code == 0, done.err
    assert read_picture(Path("wide.png")).size == (20, 26)
    recorded = read_mark(Path("wide.png")).record
    assert recorded is not None
    assert recorded["uncrop"] == [4, 0, 2, 6]
    assert edit(photos / "sub" / "c.png", "--uncrop", "4,0,2,6", out="wide.png").out == (
        "0 edited, 1 already done\n"
    )


def test_a_black_mask_lets_a_picture_grow_alone(edit, photos):
    Image.new("L", (20, 14)).save("black.png")
    done = edit(photos / "sub" / "c.png", "--mask", "black.png", "--uncrop", "0,0,5,0", out="w.png")
    assert (done.code, done.out) == (0, "1 edited\n"), done.err
    picture, result = read_picture(photos / "sub" / "c.png"), read_picture(Path("w.png"))
    assert result.size == (14, 25)
    assert result.colour[..., :20].equal(picture.colour)
    assert result.colour[..., 20:].float().std() > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--mask", "no.png"], 1, "no.png: cannot be read"),
        (["--mask", "black.png"], 1, "black.png: the mask is empty, because no pixel is brighter"),
        (["--mask", "small.png"], 1, "the mask has 7x5 px, but the image has 20x14; a mask is for"),
        (["--mask", "red.png"], 1, "red.png: the mask has colours; it must be black and white"),
        (["--uncrop", "1,2,3"], 2, "--uncrop takes LEFT,TOP,RIGHT,BOTTOM in pixels"),
        (["--uncrop", "0,0,0,0"], 1, "uncrop adds nothing"),
        (["--strength", "0"], 2, "strength must be above 0 and at most 1, got 0.0."),
        (["--strength", "1.5"], 2, "strength must be above 0 and at most 1, got 1.5."),
        (
            ["--prompt", "a cat"],
            1,
            "tiny-fill takes no prompt; leave --prompt out, or name a pipeline that takes text "
            "with --model.",
        ),
        (["--negative", "a dog"], 1, "tiny-fill takes no negative prompt; leave --negative out"),
        (["--mask", "black.png", "--resamplings", "0"], 2, "should be greater than or equal"),
    ],
)
def test_wrong_usage_is_reported_in_one_line_before_any_work(
    edit, photos, arguments, code, message
):
    Image.new("L", (20, 14)).save("black.png")
    Image.new("L", (7, 5)).save("small.png")
    Image.new("RGB", (20, 14), "red").save("red.png")
    done = edit(photos / "a.jpg", *arguments)
    assert done.code == code
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert not Path("out").exists()


def test_a_prompt_for_a_model_of_classes_is_answered_with_their_option(
    command, cascade, photos, mask, tmp_path
):
    cascade.save_pretrained(tmp_path / "cats")
    wrong = ["--mask", mask, "--prompt", "a cat", "--model", tmp_path / "cats"]
    done = command("edit", photos / "a.jpg", *wrong, "-o", "out")
    assert (done.code, Path("out").exists()) == (1, False)
    assert "cats takes no prompt; leave --prompt out, give a class with --class, or" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "predictor-corrector"], "only the samplers ddim, ddpm and euler-maruyama"),
        (["--set", "base.sampler=ode"], "only the samplers ddim, ddpm and euler-maruyama"),
        (["--set", "base.reuse=2"], "reuse must be 1 to repeat steps"),
        (["--strength", 0.5, "--sampler", "euler", "--resamplings", 1], "samplers of diffusers"),
        (["--resamplings", 1, "--jump-length", 3], "jump_length has no effect with resamplings 1"),
        (["--mask", "full.png", "--resamplings", 3], "because the whole image is redrawn"),
    ],
)
def test_settings_that_fit_no_picture_are_wrong_usage(
    command, cascade, photos, mask, tmp_path, arguments, message
):
    Image.new("L", (20, 14), 255).save("full.png")
    cascade.save_pretrained(tmp_path / "cats")
    rest = ["-o", "out", "--model", tmp_path / "cats", "--mask", mask, *arguments]
    done = command("edit", photos, *rest)
    assert (done.code, done.out, Path("out/c.png").exists()) == (2, "", False)
    assert done.err.startswith("cascade: ")
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("inputs", "options", "is_suggested"),
    [
        (["photos/sub/c.png", "a cat"], [], True),
        (["a cat"], [], True),
        (["cat"], [], True),
        (["nosuch.png"], [], False),
        (["a cat"], ["--prompt", "a dog"], False),
    ],
)
@pytest.mark.parametrize("out", ["out", "out.png"])
def test_a_prompt_among_the_inputs_is_answered_with_its_option(
    edit, photos, mask, inputs, options, is_suggested, out
):
    done = edit(*inputs, "--mask", mask, *options, out=out)
    assert done.code == 1
    advice = "; if it is a prompt, write --prompt before it." if is_suggested else "."
    assert done.err == f"cascade: {inputs[-1]}: no such file or folder{advice}\n"


def test_commands_without_prompts_suggest_none(command, inpainter_folder, photos, mask):
    done = command("restore", "a cat", "--mask", mask, "-o", "out", "--model", inpainter_folder)
    assert done.err == "cascade: a cat: no such file or folder.\n"


def test_an_upscaler_mends_what_is_masked_and_says_if_that_is_wide(
    command, upscaler, photos, caplog
):
    source, hole = photos / "sub" / "c.png", np.zeros((14, 20), bool)
    hole[3:12, 5:14] = True
    Image.fromarray(hole).save("mask.png")
    done = command("edit", source, "--mask", "mask.png", "-o", "out.png", "--model", upscaler)
    assert (done.code, done.out) == (0, "1 edited\n"), done.err
    assert "c.png has a hole wider than 8 px" in done.err
    assert "wider" not in caplog.text
    picture, result = read_picture(source), read_picture(Path("out.png"))
    assert result.colour[:, ~hole].equal(picture.colour[:, ~hole])
    assert not result.colour[:, hole].equal(picture.colour[:, hole])


def test_wide_holes_of_many_results_are_mentioned_once(command, upscaler, photos):
    source = photos / "sub" / "c.png"
    values = np.full((14, 20), 255, np.uint8)
    values[0] = 0
    Image.fromarray(values).save("mask.png")
    done = command("edit", source, "--mask", "mask.png", "-n", 2, "-o", "out", "--model", upscaler)
    assert done.code == 0, done.err
    assert done.err.count("has a hole wider than 8 px") == 1
    assert "further such images are not mentioned" in done.err
    done = command("edit", source, "--strength", 0.5, "-o", "low.png", "--model", upscaler)
    assert done.code == 0, done.err
    assert "hole" not in done.err


def test_an_upscaler_cannot_draw_a_whole_picture(command, upscaler, photos):
    Image.new("L", (20, 14), 255).save("full.png")
    values = np.full((14, 20), 255, np.uint8)
    values[0] = 0
    Image.fromarray(values).save("nearly.png")
    for verb, mask in (("edit", "full.png"), ("restore", "nearly.png")):  # which grows by 2 px
        done = command(verb, photos, "--mask", mask, "-o", "out", "--model", upscaler)
        assert (done.code, done.out) == (2, ""), done.err
        assert "cascade: the hole has no surroundings" in done.err
        assert done.err.count("\n") == 1


def test_a_model_that_cannot_edit_is_refused(command, colourer, photos, mask):
    done = command("edit", photos, "--mask", mask, "-o", "out", "--model", colourer)
    assert done.code == 1
    assert "so it cannot edit images" in done.err


def test_a_map_is_dark_outside_the_hole(edit, photos, mask):
    done = edit(photos / "sub" / "c.png", "--mask", mask, "--map", "-n", 2)
    assert (done.code, done.out) == (0, "1 edited (mean of 2 seeds)\n"), done.err
    hole = read_picture(mask).colour[0].numpy() > 127
    with Image.open("out/c-doubt.png") as image:
        numbers = np.asarray(image)[:14, :20]
    assert (numbers[~hole] == 0).all()
    assert numbers[hole].max() > 100


def measured(folder: str, **changes: Any) -> str:
    """Save a curve beside the stages of a pipeline; returns the folder."""
    stages = CascadePipeline.from_pretrained(folder).stages
    values = {"seeds": 2, "pictures": 40, "model": model_digest([stages.last]), **changes}
    ExpectedError(curves=(CURVE,), **values).save(Path(folder))
    return folder


def test_a_map_shows_expected_errors_inside_the_hole_alone(
    command, saved_pipeline, draw, tmp_path, mask
):
    fills = Contract(Space(size_px=32), (Mask(),))
    folder = measured(saved_pipeline("fill", fills, tmp_path / "measured"))
    Image.fromarray(np.random.default_rng(0).integers(9_000, 50_000, (14, 20)).astype("u2")).save(
        "deep.png"
    )
    rest = ("--model", folder, "--device", "cpu", "--map", "-n", 2)
    hole = read_picture(mask).colour[0].numpy() > 127
    for verb, options in (("edit", []), ("restore", ["--grow", 0])):
        done = command(verb, "deep.png", "--mask", mask, "-o", verb, *rest, *options)
        assert done.code == 0, done.err
        assert "this is the standard deviation" not in done.err
        with tifffile.TiffFile(f"{verb}/deep-doubt.tif") as file:
            text, errors = file.pages[0].description, file.pages[0].asarray()
        assert text == "expected error (measured on 40 images), 2 seeds"
        assert (errors[~hole] == 0).all()
        assert (errors[hole] >= 0.1 * 65535 / 2).all()
    Path(folder, "doubt.json").unlink()
    done = command("edit", "deep.png", "--mask", mask, "-o", "spread", *rest)
    assert done.code == 0, done.err
    spread = tifffile.imread("spread/deep-doubt.tif")
    errors = tifffile.imread("edit/deep-doubt.tif")
    assert np.allclose(errors[hole], (0.1 * 65535 / 2 + 2 * spread)[hole], rtol=1e-4)


def test_curves_of_other_tasks_and_other_edits_are_not_used(
    command, saved_pipeline, photos, mask, tmp_path
):
    fills = Contract(Space(size_px=32), (Mask(),))
    upscales = Contract(Space(size_px=64), (LowResolution(size_px=16),))
    filler = measured(saved_pipeline("fill", fills, tmp_path / "fill"))
    upscaler = measured(saved_pipeline("up", upscales, tmp_path / "up"))
    source, rest = photos / "sub" / "c.png", ("--mask", mask, "--device", "cpu", "--map", "-n", 2)
    cases = [(upscaler, []), (filler, ["--feather", 2]), (filler, ["--strength", 0.9])]
    for number, (model, options) in enumerate(cases):
        done = command("edit", source, "-o", f"out{number}", "--model", model, *rest, *options)
        assert done.code == 0, done.err
        assert "expected errors are known for 2 seeds and the model's own task" in done.err
        settings = read_mark(Path(f"out{number}/c.png")).record
        assert settings is not None
        assert "expected_error" not in settings
