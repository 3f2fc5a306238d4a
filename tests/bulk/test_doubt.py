"""`--map`: the mean over seeds, and the standard deviation in files beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.bulk import doubt_files
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.errors import OutputError
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.rasters.recorded import read_mark
from cascade.pipeline import CascadePipeline
from cascade.restoration.expected_error import ErrorCurve, ExpectedError, model_digest
from cascade.space import Space


@pytest.fixture(scope="module")
def doubler(saved_pipeline, tmp_path_factory) -> str:
    """Folder of a saved pipeline that doubles images of two bands."""
    space = Space(size_px=16, channels=2, range=(0, 1000), unit="mK", show=(2,))
    folder = tmp_path_factory.mktemp("model") / "bands-x2"
    return saved_pipeline("up", Contract(space, (LowResolution(size_px=8),)), folder)


@pytest.fixture
def upscale(command, upscaler):
    def run(*arguments: object, model: str = upscaler):
        options = ["--model", model, "--device", "cpu", "--steps", 1]
        return command("upscale", *arguments, *options)

    return run


def names(folder: str = "out") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if path.name[0] != ".")


def deviation(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (C, H, W) of pictures on disk."""
    stacked = np.stack([read_picture(path).colour.numpy() for path in paths]).astype(float)
    return stacked.mean(0), stacked.std(0, ddof=1)


def colours(path: Path, height: int, width: int) -> np.ndarray:
    """Numbers of the palette in the map of a doubt picture."""
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)[:height, :width]


# ---- pictures -----------------------------------------------------------------------------------


def test_the_map_of_a_picture_is_that_of_its_results(upscale, photos):
    source = photos / "a.jpg"
    assert upscale(source, "-o", "each", "-n", 3, "--seed", 2, "--format", "png").code == 0
    done = upscale(source, "-o", "out", "-n", 3, "--map", "--seed", 2, "--format", "png")
    assert (done.code, done.out) == (0, "1 upscaled (mean of 3 seeds)\n"), done.err
    assert names() == ["a-doubt.png", "a.png"]
    assert names("each") == [*(f"a-seed{seed}.png" for seed in (2, 3, 4)), "a-variants.png"]
    mean, std = deviation(sorted(Path("each").glob("a-seed*.png")))
    assert np.array_equal(read_picture(Path("out/a.png")).colour.numpy(), np.rint(mean))
    settings = read_mark(Path("out/a.png")).record
    assert settings is not None
    assert (settings["seed"], settings["seeds"]) == (2, 3)
    together = np.sqrt((std**2).mean(0))
    numbers = colours(Path("out/a-doubt.png"), *together.shape)
    assert np.corrcoef(numbers.ravel(), together.ravel())[0, 1] > 0.99


def test_the_same_command_resumes_and_makes_a_lost_map_again(upscale, photos):
    arguments = (photos / "a.jpg", photos / "b.png", "-o", "out", "--map", "-n", 2)
    assert upscale(*arguments).out == "2 upscaled (mean of 2 seeds)\n"
    assert upscale(*arguments).out == "0 upscaled (mean of 2 seeds), 2 already done\n"
    lost = Path("out/a-doubt.png")
    content = lost.read_bytes()
    lost.unlink()
    assert upscale(*arguments).out == "1 upscaled (mean of 2 seeds), 1 already done\n"
    assert lost.read_bytes() == content
    plain = upscale(photos / "a.jpg", "-o", "out")
    assert plain.code == 1
    assert "was made with seeds=2 (now 1)" in plain.err
    quiet = upscale(*arguments, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_maps_of_results_that_differ_in_suffix_alone_keep_it(upscale, photos, draw):
    draw(photos / "a.png", seed=9)
    done = upscale(photos / "a.jpg", photos / "a.png", "-o", "out", "--map", "-n", 2)
    assert done.code == 0, done.err
    assert names() == ["a.jpg", "a.jpg-doubt.png", "a.png", "a.png-doubt.png"]


def test_files_of_somebody_else_stay(upscale, photos, draw):
    draw(Path("out/a-doubt.png"))
    content = Path("out/a-doubt.png").read_bytes()
    done = upscale(photos / "a.jpg", "-o", "out", "--map", "-n", 2)
    assert done.code == 1
    assert "out/a-doubt.png already exists and is not a sheet of this command" in done.err
    assert Path("out/a-doubt.png").read_bytes() == content
    assert not Path("out/a.jpg").exists()


def test_deep_pictures_have_their_deviation_as_numbers_too(upscale, photos):
    values = np.random.default_rng(0).integers(9_000, 50_000, (8, 9)).astype(np.uint16)
    Image.fromarray(values).save("deep.png")
    assert upscale("deep.png", "-o", "each", "-n", 2).code == 0
    assert upscale("deep.png", "-o", "out", "-n", 2, "--map").code == 0
    assert names() == ["deep-doubt.png", "deep-doubt.tif", "deep.png"]
    mean, std = deviation(sorted(Path("each").glob("*-seed*.png")))
    assert np.array_equal(read_picture(Path("out/deep.png")).colour.numpy(), np.rint(mean))
    written = tifffile.imread("out/deep-doubt.tif")
    assert written.dtype == np.float32
    assert np.allclose(written, std[0], atol=0.01)


def test_a_lost_file_of_numbers_is_made_again(upscale, photos):
    values = np.random.default_rng(0).integers(9_000, 50_000, (8, 9)).astype(np.uint16)
    Image.fromarray(values).save("deep.png")
    arguments = ("deep.png", photos / "a.jpg", "-o", "out", "-n", 2, "--map")
    assert upscale(*arguments).code == 0
    numbers = Path("out/deep-doubt.tif")
    content = tifffile.imread(numbers)
    ledger = next(path for path in Path("out").iterdir() if path.suffix == ".jsonl")
    for has_ledger in (True, False):
        numbers.unlink()
        if not has_ledger:
            ledger.unlink()
        assert upscale(*arguments).out == "1 upscaled (mean of 2 seeds), 1 already done\n"
        assert np.array_equal(tifffile.imread(numbers), content)
        assert upscale(*arguments).out == "0 upscaled (mean of 2 seeds), 2 already done\n"


@pytest.mark.parametrize("step", ["save_sheet", "write_rasters"])
def test_deep_pictures_whose_map_failed_are_made_by_the_same_command(
    upscale, photos, monkeypatch, step
):
    values = np.random.default_rng(0).integers(9_000, 50_000, (8, 9)).astype(np.uint16)
    Image.fromarray(values).save("deep.png")
    arguments = ("deep.png", "-o", "out", "-n", 2, "--map")
    with monkeypatch.context() as patch:
        patch.setattr(doubt_files, step, Mock(side_effect=OutputError("stopped")))
        assert "stopped" in upscale(*arguments).err
    again = upscale(*arguments)
    assert (again.code, again.out) == (0, "1 upscaled (mean of 2 seeds)\n"), again.err
    assert names() == ["deep-doubt.png", "deep-doubt.tif", "deep.png"]
    assert "1 already done" in upscale(*arguments).out


def test_every_page_has_a_deviation_and_the_first_one_is_shown(upscale, photos):
    draw = np.random.default_rng(0)
    pages = [draw.integers(9_000, 50_000, (8, 9 + n)).astype(np.uint16) for n in range(2)]
    with tifffile.TiffWriter("pages.tif") as writer:
        for page in pages:
            writer.write(page, photometric="minisblack")
    done = upscale("pages.tif", "-o", "out", "--map", "-n", 2)
    assert done.code == 0, done.err
    with tifffile.TiffFile("out/pages-doubt.tif") as file:
        assert [page.shape for page in file.pages] == [(32, 36), (32, 40)]
        assert all(page.asarray().max() > 0 for page in file.pages)
    with Image.open("out/pages-doubt.png") as image:
        assert image.width >= 36


def test_colourise_maps_too(command, colourer, photos):
    grey = photos / "sub" / "c.png"
    options = ["--model", colourer, "--device", "cpu", "--steps", 1]
    done = command("colourise", grey, "-o", "out", "--map", "-n", 2, *options)
    assert (done.code, done.out) == (0, "1 coloured (mean of 2 seeds)\n"), done.err
    assert names() == ["c-doubt.png", "c.png"]


def test_a_map_of_one_seed_is_refused_in_one_line(command, photos):
    for verb in ("upscale", "colourise"):
        done = command(verb, photos, "-o", "out", "--map")
        assert done.code == 2
        assert "--map needs at least 2 seeds; add -n 8, for example." in done.err
        assert not Path("out").exists()


# ---- bands --------------------------------------------------------------------------------------


def test_bands_have_their_deviation_as_numbers_at_the_same_place(upscale, doubler, photos):
    values = (np.random.default_rng(0).random((2, 8, 10)) * 900 + 50).astype(np.uint16)
    values[0, 2, 3] = 5
    place = [(33550, "d", 3, (4.0, 4.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    options = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
    tags = [*place, (42113, "s", 0, "5", True)]
    tifffile.imwrite("field.tif", values, extratags=tags, **options)
    assert upscale("field.tif", "-o", "each", "-n", 2, model=doubler).code == 0
    done = upscale("field.tif", "-o", "out", "-n", 2, "--map", model=doubler)
    assert done.code == 0, done.err
    assert names("each") == ["field-seed0.tif", "field-seed1.tif"]
    assert names() == ["field-doubt.png", "field-doubt.tif", "field.tif"]
    each = [tifffile.imread(path).astype(float) for path in sorted(Path("each").glob("*.tif"))]
    mean, std = np.mean(each, 0), np.std(each, 0, ddof=1)
    missing = np.zeros(mean.shape, bool)
    missing[4:6, 6:8, 0] = True
    result, numbers = tifffile.imread("out/field.tif"), tifffile.imread("out/field-doubt.tif")
    assert (result.dtype, numbers.dtype) == (np.uint16, np.float32)
    expected = np.where(np.rint(mean) == 5, 6, np.rint(mean))  # 5 means missing
    assert np.array_equal(result[~missing], expected[~missing])
    assert (result[missing] == 5).all()
    assert np.array_equal(np.isnan(numbers), missing)
    assert np.allclose(numbers[~missing], std[~missing], rtol=1e-4, atol=1e-3)
    with tifffile.TiffFile("out/field-doubt.tif") as file:
        assert file.pages[0].tags[33550].value == (2.0, 2.0, 0.0)
        assert file.pages[0].tags[42113].value == "nan"
    again = upscale("field.tif", "-o", "out", "-n", 2, "--map", model=doubler)
    assert again.out == "0 upscaled (mean of 2 seeds), 1 already done\n"
    Path("out/field-doubt.tif").unlink()
    again = upscale("field.tif", "-o", "out", "-n", 2, "--map", model=doubler)
    assert again.out == "1 upscaled (mean of 2 seeds)\n"
    assert np.array_equal(tifffile.imread("out/field-doubt.tif"), numbers, equal_nan=True)
    shown = colours(Path("out/field-doubt.png"), 16, 20)
    assert np.corrcoef(shown.ravel(), std[..., 1].ravel())[0, 1] > 0.98


@pytest.mark.parametrize("step", ["deviation_picture", "write_rasters"])
def test_bands_whose_map_failed_are_made_by_the_same_command(
    upscale, doubler, photos, monkeypatch, step
):
    np.save("field.npy", (np.random.default_rng(0).random((2, 8, 8)) * 900).astype(np.float32))
    arguments = ("field.npy", "-o", "out", "-n", 2, "--map")
    with monkeypatch.context() as patch:
        patch.setattr(doubt_files, step, Mock(side_effect=OutputError("stopped")))
        assert "stopped" in upscale(*arguments, model=doubler).err
    again = upscale(*arguments, model=doubler)
    assert (again.code, again.out) == (0, "1 upscaled (mean of 2 seeds)\n"), again.err
    assert names() == ["field-doubt.npy", "field-doubt.png", "field.npy"]
    assert "1 already done" in upscale(*arguments, model=doubler).out


def test_a_stack_of_arrays_has_a_stack_of_deviations(upscale, doubler, photos):
    stack = (np.random.default_rng(0).random((3, 2, 8, 8)) * 900).astype(np.float32)
    np.save("stack.npy", stack)
    done = upscale("stack.npy", "-o", "out", "-n", 2, "--map", model=doubler)
    assert done.code == 0, done.err
    assert names() == ["stack-doubt.npy", "stack-doubt.png", "stack.npy"]
    numbers = np.load("out/stack-doubt.npy")
    assert (numbers.shape, numbers.dtype) == ((3, 2, 16, 16), np.float32)
    assert (numbers.max(axis=(1, 2, 3)) > 0).all()


def test_a_volume_of_whole_numbers_has_its_deviation_as_floats_in_the_same_space(
    upscale, saved_pipeline, tmp_path_factory, photos
):
    nibabel = pytest.importorskip("nibabel")
    space = Space(size_px=16, channels=1, range=(0, 1000))
    folder = tmp_path_factory.mktemp("model") / "scan-x2"
    model = saved_pipeline("up", Contract(space, (LowResolution(size_px=8),)), folder)
    values = (np.random.default_rng(0).random((8, 10, 2)) * 900).astype(np.int16)
    volume = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]))
    volume.header.set_slope_inter(2.0, 100.0)
    nibabel.save(volume, "scan.nii.gz")
    done = upscale("scan.nii.gz", "-o", "out", "-n", 2, "--map", model=model)
    assert done.code == 0, done.err
    assert names() == ["scan-doubt.nii.gz", "scan-doubt.png", "scan.nii.gz"]
    result, doubt = nibabel.load("out/scan.nii.gz"), nibabel.load("out/scan-doubt.nii.gz")
    assert (result.get_data_dtype(), doubt.get_data_dtype()) == (np.int16, np.float32)
    assert np.array_equal(result.affine, doubt.affine)
    numbers = doubt.get_fdata()
    assert numbers.shape == (16, 20, 2)
    assert 0 <= numbers.min() < numbers.mean() < 400


def test_a_map_larger_than_the_limit_of_pillow_is_written_again(upscale, photos, monkeypatch):
    arguments = (photos / "a.jpg", "-o", "out", "--map", "-n", 2)
    assert upscale(*arguments).code == 0
    Path("out/a.jpg").unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    again = upscale(*arguments)
    assert (again.code, again.out) == (0, "1 upscaled (mean of 2 seeds)\n"), again.err


# ---- expected errors ----------------------------------------------------------------------------


@pytest.fixture
def measured(saved_pipeline, tmp_path) -> str:
    """Folder of a pipeline of two bands, whose second deviation says nothing about errors."""
    space = Space(size_px=16, channels=2, range=(0, 1000), unit="mK", show=(2,))
    contract = Contract(space, (LowResolution(size_px=8),))
    folder = saved_pipeline("up", contract, tmp_path / "measured")
    stages = CascadePipeline.from_pretrained(folder).stages
    digest = model_digest([stages.last.with_sampling(stages.last.sampling.changed(steps=1))])
    curve = ErrorCurve(deviations=(0, 2), errors=(0.1, 4.1), correlation=0.4, low=0.3, high=0.5)
    curves = (curve, replace(curve, low=-0.1))
    ExpectedError(seeds=2, pictures=40, model=digest, curves=curves).save(Path(folder))
    return folder


def test_a_map_shows_expected_errors_where_they_were_measured(
    upscale, doubler, measured, photos, monkeypatch
):
    captions = []
    drawn = doubt_files.deviation_picture
    monkeypatch.setattr(
        doubt_files, "deviation_picture",
        lambda panels: captions.append(panels[0].caption) or drawn(panels),
    )  # fmt: skip
    values = (np.random.default_rng(0).random((2, 8, 10)) * 900 + 50).astype(np.uint16)
    tifffile.imwrite("field.tif", values, photometric="minisblack", planarconfig="separate")
    done = upscale("field.tif", "-o", "plain", "-n", 2, "--map", model=doubler)
    assert done.code == 0, done.err
    assert "expected error" not in done.err
    done = upscale("field.tif", "-o", "out", "-n", 2, "--map", model=measured)
    assert done.code == 0, done.err
    assert done.err.count("does not predict errors here in band 2") == 1
    done = upscale("field.tif", "-o", "other", "-n", 3, "--map", model=measured)
    assert "expected errors are known for 2 seeds" in done.err
    files = {
        name: tifffile.TiffFile(f"{name}/field-doubt.tif") for name in ("plain", "out", "other")
    }
    texts = {name: file.pages[0].description for name, file in files.items()}
    assert texts == {
        "plain": "standard deviation over 2 seeds, not an error",
        "out": "expected error (measured on 40 images), 2 seeds",
        "other": "standard deviation over 3 seeds, not an error",
    }
    assert captions == [f"{texts[name]}, band 2" for name in files]
    spread, errors = (files[name].pages[0].asarray() for name in ("plain", "out"))
    assert np.allclose(errors, 0.1 * 500 + 2 * spread, atol=1e-2)
    again = upscale("field.tif", "-o", "out", "-n", 2, "--map", model=measured)
    assert "1 already done" in again.out
    Path(measured, "doubt.json").unlink()
    stale = upscale("field.tif", "-o", "out", "-n", 2, "--map", model=measured)
    assert stale.code == 1
    assert "shows expected errors, which no longer apply to these results" in stale.err
