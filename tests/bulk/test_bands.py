"""`cascade upscale` with a model of bands: files come back as they came."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from cascade.bulk import making
from cascade.bulk.ledger import Ledger
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Folder of a saved pipeline that doubles images of two bands."""
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(Space(size_px=16, channels=2, range=(0, 1000)), (LowResolution(size_px=8),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1),
        embedding_dim=16,
    )
    folder = tmp_path_factory.mktemp("model") / "bands-x2"
    CascadePipeline.from_stages({"up": stage}).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def upscale(command, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, out: object = "out"):
        return command("upscale", *arguments, "-o", out, "--model", model, "--device", "cpu")

    return run


def write_inputs() -> None:
    Path("in/sub").mkdir(parents=True)
    values = np.arange(2 * 8 * 10, dtype=np.uint16).reshape(2, 8, 10)
    options = {"photometric": "minisblack", "planarconfig": "separate"}
    tifffile.imwrite("in/a.tif", values, extratags=[(42113, "s", 0, "5", True)], **options)
    np.save("in/sub/stack.npy", np.stack([values, values + 1]).astype(np.float32))


def test_files_of_bands_keep_their_format_and_are_not_made_twice(upscale):
    write_inputs()
    done = upscale("in")
    assert done.code == 0, done.err
    assert "2 upscaled" in done.out
    result = tifffile.imread("out/a.tif")
    assert (result.shape, result.dtype) == ((16, 20, 2), np.uint16)
    assert (result[0:2, 10:12, 0] == 5).all()
    assert (result == 5).sum() == 4
    stack = np.load("out/sub/stack.npy")
    assert (stack.shape, stack.dtype) == ((2, 2, 16, 20), np.float32)
    again = upscale("in")
    assert "2 already done" in again.out
    first = upscale("in/sub/stack.npy", "--pages", "first", out="first.npy")
    assert first.code == 0, first.err
    assert np.load("first.npy").shape == (1, 2, 16, 20)
    again = upscale("in/sub/stack.npy", "--pages", "first", out="first.npy")
    assert "first.npy already exists and holds no record of how it was made; move it" in again.err


def test_files_that_do_not_fit_are_named_with_the_reason(upscale):
    write_inputs()
    np.save("in/one.npy", np.zeros((8, 8), np.uint16))
    np.save("in/double.npy", np.zeros((2, 8, 8)))
    np.save("in/bright.npy", np.full((2, 8, 8), 2000, np.uint16))
    done = upscale("in")
    assert done.code == 1
    assert "failed: in/one.npy: the image has 1 band, but the model takes 2." in done.err
    assert "failed: in/double.npy: holds values of type float64" in done.err
    assert "in/bright.npy" in done.err
    assert "100 % of band 1 outside 0 to 1000" in done.err
    assert "3 upscaled, 2 failed" in done.out


def test_clipped_numbers_of_any_image_of_a_file_are_remarked(upscale):
    Path("in").mkdir()
    stack = np.zeros((3, 2, 8, 8), np.uint16)
    stack[1, 1] = 2000
    np.save("in/stack.npy", stack)
    done = upscale("in")
    assert done.code == 0, done.err
    assert "in 1 of 3 images, most in image 2: 100 % of band 2 outside 0 to 1000" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--compare"], "before/after sheets is for colour images, but this model makes bands"),
        (["--range", 0, 9], "a range for black and white is for colour images"),
        (["--format", "png"], "a file format for all results is for colour images"),
    ],
)
def test_options_for_colour_pictures_are_refused(upscale, options, words):
    write_inputs()
    done = upscale("in", *options)
    assert done.code == 1
    assert words in done.err


def test_options_for_bands_are_refused_by_a_model_of_colours(command, upscaler, tmp_path):
    done = command("upscale", tmp_path, "-o", "out", "--model", upscaler, "--nodata", 0)
    assert done.code == 1
    assert "a value for missing data is for bands, but this model makes colour" in done.err


def test_a_number_for_missing_ones_that_the_file_cannot_hold_is_refused(upscale):
    write_inputs()
    tifffile.imwrite("in/a.tif", np.zeros((2, 8, 10), np.uint16), photometric="minisblack")
    done = upscale("in/a.tif", "--nodata", 70000, out="q.tif")
    assert done.code == 1
    assert "in/a.tif: no value of type uint16 can be 70000" in done.err
    assert not Path("q.tif").exists()


def test_a_single_result_needs_a_format_that_holds_it(upscale):
    write_inputs()
    done = upscale("in/a.tif", out="out.dcm")
    assert done.code == 1
    assert "DICOM is written for images that come from it and keep" in done.err
    assert upscale("in/a.tif", out="out.npy").code == 0
    assert np.load("out.npy").shape == (2, 16, 20)


@pytest.mark.parametrize("options", [[], ["--map", "-n", 2]])
def test_a_run_killed_before_it_noted_a_result_of_bands_has_still_made_it(
    upscale, monkeypatch, options
):
    write_inputs()

    def stop(*arguments):
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", stop)
        assert ", 1 left; run the same command" in upscale("in/a.tif", *options).out
    before = Path("out/a.tif").stat().st_mtime_ns
    assert upscale("in/a.tif", *options).out.endswith(", 1 already done\n")
    assert Path("out/a.tif").stat().st_mtime_ns == before
    assert not list(Path("out").glob(".*.tmp"))


def test_a_run_killed_before_a_result_of_bands_has_its_name_makes_it_again(upscale, monkeypatch):
    write_inputs()

    def stop(file: Path, path: Path):
        assert file.is_file()
        raise SystemExit(143)

    with monkeypatch.context() as patch:
        patch.setattr(making, "move_into_place", stop)
        assert upscale("in/a.tif").out.startswith("0 upscaled, 1 left")
    assert not Path("out/a.tif").exists()
    assert upscale("in/a.tif").out == "1 upscaled\n"
    Path("out/a.tif").write_bytes(Path("in/a.tif").read_bytes())  # the work of somebody else
    assert "already exists" in upscale("in/a.tif").err


def test_bands_have_a_result_for_each_seed(upscale):
    write_inputs()
    done = upscale("in/a.tif", "-n", 2)
    assert done.code == 0, done.err
    results = [tifffile.imread(path) for path in sorted(Path("out").glob("*.tif"))]
    assert len(results) == 2
    assert results[0].shape == results[1].shape
    assert (results[0] != results[1]).any()


@pytest.mark.parametrize(
    ("options", "out", "reason"),
    [
        ((), "x.png", "PNG holds one image of 1 or 3 bands of uint8 or uint16"),
        (("--nodata", 70000), "x.tif", "a.npy: no value of type int16 can be 70000"),
        ((), "one.tif", "the image has 1 band, but the model takes 2"),
        ((), "double.tif", "holds values of type float64"),
    ],
)
def test_a_dry_run_finds_what_a_run_cannot_make(upscale, options, out, reason):
    np.save("a.npy", np.zeros((2, 8, 10), np.int16))
    np.save("one.npy", np.zeros((8, 8), np.uint16))
    np.save("double.npy", np.zeros((2, 8, 8)))
    source = "a.npy" if out.startswith("x") else out.replace(".tif", ".npy")
    rehearsed = upscale(source, *options, "--dry-run", out=out)
    done = upscale(source, *options, out=out)
    assert rehearsed.code == done.code == 1
    for each in (rehearsed, done):
        assert reason in each.err
    assert "0 to be upscaled, 1 failed; nothing was written" in rehearsed.out


def test_a_dry_run_tells_the_images_of_a_file(upscale):
    np.save("stack.npy", np.zeros((3, 2, 8, 10), np.uint16))
    rehearsed = upscale("stack.npy", "--dry-run")
    assert rehearsed.out.splitlines()[0] == "to be made: out/stack.npy, 20x16 px, 3 pages"
    first = upscale("stack.npy", "--pages", "first", "--dry-run")
    assert first.out.splitlines()[0] == "to be made: out/stack.npy, 20x16 px"
