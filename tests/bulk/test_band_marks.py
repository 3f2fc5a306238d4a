"""Results of bands say that a model made them, and `cascade inspect` tells how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade import save_marked
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.errors import OutputError
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import read_raster
from cascade.imaging.rasters.recorded import read_mark
from cascade.imaging.rasters.writing import write_rasters
from cascade.space import Space

RESTORED, GENERATED = "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia"
LEDGER = Path("out/.cascade-upscale.jsonl")


@pytest.fixture(scope="module")
def model(saved_pipeline, tmp_path_factory) -> str:
    """Folder of a saved pipeline that doubles images of one band."""
    contract = Contract(
        Space(size_px=16, channels=1, range=(-1000, 3000)), (LowResolution(size_px=8),)
    )
    return saved_pipeline("up", contract, tmp_path_factory.mktemp("model") / "scans-x2")


@pytest.fixture
def upscale(command, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, out: object = "out"):
        options = ("--model", model, "--device", "cpu", "--steps", 1)
        return command("upscale", *arguments, "-o", out, *options)

    return run


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2000, shape).astype(np.int16)


def write_scan(name: str) -> Path:
    if name == "a.dcm":
        pydicom = pytest.importorskip("pydicom")
        source = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
        dataset = pydicom.dcmread(source)
        dataset.Rows = dataset.Columns = 16
        dataset.PixelData = numbers(16, 16).tobytes()
        dataset.save_as(name)
    elif name.endswith(".tif"):
        tifffile.imwrite(name, numbers(10, 12), photometric="minisblack")
    elif name.endswith(".npz"):
        np.savez(name, image=numbers(10, 12))
    elif name.endswith(".npy"):
        np.save(name, numbers(10, 12))
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(numbers(8, 10, 2), np.eye(4)), name)
    return Path(name)


NAMES = ["a.tif", "a.dcm", "a.nii", "a.nii.gz", "a.npz"]


@pytest.mark.parametrize("name", NAMES)
def test_a_result_tells_how_it_was_made(upscale, command, name):
    source = write_scan(name)
    before = command("inspect", source)
    assert (before.code, len(before.out.splitlines())) == (0, 2), before.err
    assert "record   none: Cascade did not make it" in before.out
    assert upscale(source, "--seed", 5).code == 0
    done = command("inspect", f"out/{name}")
    assert done.code == 0, done.err
    assert f"mark     {RESTORED}" in done.out
    assert "model    scans-x2" in done.out
    assert "seed     5" in done.out
    suffix = name.removeprefix("a")
    assert f"cascade upscale INPUT -o OUTPUT{suffix} --model FOLDER/scans-x2" in done.out
    (document,) = json.loads(command("inspect", f"out/{name}", "--json").out)["images"]
    assert document["record"]["stages"]["up"]["steps"] == 1
    assert document["mark"] == RESTORED


@pytest.mark.parametrize("name", NAMES)
def test_without_metadata_nothing_is_recorded_and_the_numbers_are_the_same(upscale, name):
    source = write_scan(name)
    assert upscale(source, out=f"with/{name}").code == 0
    done = upscale(source, "--no-metadata", out=f"out/{name}")
    assert done.code == 0, done.err
    assert read_mark(Path("out", name)).record == {}
    assert read_mark(Path("out", name)).mark == {}
    assert b"Cascade" not in Path("out", name).read_bytes()
    layout_of = {"a.tif": tifffile.imread, "a.npz": lambda path: np.load(path)["image"]}
    if read := layout_of.get(name):
        assert np.array_equal(read(f"with/{name}"), read(f"out/{name}"))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_pass_without_metadata_leaves_the_record_of_the_first_out(upscale, name):
    source = write_scan(name)
    assert upscale(source, "--seed", 5).code == 0
    again = ("--seed", 7, "--no-metadata")
    assert upscale(f"out/{name}", *again, out=f"bare-{name}").code == 0
    assert (read_mark(Path(f"bare-{name}")).mark, read_mark(Path(f"bare-{name}")).record) == (
        {},
        {},
    )
    assert b"Cascade" not in Path(f"bare-{name}").read_bytes()
    done = upscale(f"out/{name}", *again, out=f"bare-{name}")
    assert "already exists and is not a result of this command" in done.err


def test_npy_has_no_place_and_that_is_said(upscale, command):
    write_scan("a.npy")
    assert upscale("a.npy").code == 0
    done = command("inspect", "out/a.npy")
    assert (done.code, done.out.splitlines()[1:]) == (
        0,
        ["  record   none: .npy has no place for one; .npz has"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_known_by_its_record_without_the_ledger(upscale, name):
    source = write_scan(name)
    assert upscale(source, out=f"alone-{name}").out == "1 upscaled\n"
    again = upscale(source, out=f"alone-{name}")
    assert again.out == "0 upscaled, 1 already done\n", again.err
    other = upscale(source, "--seed", 9, out=f"alone-{name}")
    assert "was made with seed=0 (now 9)" in other.err
    Path(f"alone-{name}").write_bytes(Path(f"alone-{name}").read_bytes()[:-200])
    cut = upscale(source, out=f"alone-{name}")
    assert (cut.code, cut.out) == (1, "0 upscaled, 1 failed\n")
    assert "is not an intact image" in cut.err


def test_a_model_of_another_range_is_another_model(upscale, command, model, tmp_path):
    write_scan("a.tif")
    assert upscale("a.tif", out="b.tif").code == 0
    other = shutil.copytree(model, tmp_path / "other")
    (file,) = other.rglob("stage.json")
    config = json.loads(file.read_text())
    config["contract"]["space"]["range"] = [-1000, 2000]
    file.write_text(json.dumps(config))
    again = ("upscale", "a.tif", "-o", "b.tif", "--model", other, "--device", "cpu", "--steps", 1)
    done = command(*again)
    assert (done.code, "b.tif" in done.err) == (1, True)
    assert command(*again, "--overwrite").code == 0
    assert read_mark(Path("b.tif")).record["model"] == "other"


@pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.npz"])
def test_maps_of_doubt_carry_the_same_mark(upscale, command, name):
    assert upscale(write_scan(name), "--map", "-n", 2).code == 0
    for file in (Path("out/a-doubt.png"), Path(f"out/a-doubt{name[1:]}")):
        done = command("inspect", file)
        assert f"mark     {RESTORED}" in done.out
        assert "model    scans-x2" in done.out
        assert "--model FOLDER/scans-x2 --scale 2 --variants 2 --map" in done.out
    assert read_mark(Path("out/a-doubt.png")).record == read_mark(Path("out", name)).record
    assert upscale(write_scan(name), "--map", "-n", 2, "--no-metadata", out="bare").code == 0
    assert read_mark(Path("bare/a-doubt.png")).mark == {}
    assert read_mark(Path(f"bare/a-doubt{name[1:]}")).mark == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_drew_stays_marked_as_that(upscale, name):
    raster = read_raster(write_scan(name))
    count = 2 if "nii" in name else 1
    mark = FileMark(source="generated", settings={"model": "m"})
    write_rasters(Path(name), [raster] * count, count, mark=mark)
    assert upscale(name).code == 0
    assert read_mark(Path("out", name)).mark["DigitalSourceType"] == GENERATED


@pytest.fixture(scope="module")
def grey_model(saved_pipeline, tmp_path_factory) -> str:
    """Folder of a saved pipeline that doubles grey pictures as bands."""
    contract = Contract(Space(size_px=16, channels=1, range=(0, 250)), (LowResolution(size_px=8),))
    return saved_pipeline("up", contract, tmp_path_factory.mktemp("model") / "grey-x2")


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pictures_that_a_model_drew_stay_marked_as_bands(
    command, grey_model, tmp_path, monkeypatch, mode, suffix
):
    monkeypatch.chdir(tmp_path)
    source = Path(f"a{suffix}")
    pixels = np.random.default_rng(0).integers(0, 250, (10, 12)).astype(np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    if mode == "LA":
        picture.putpixel((0, 0), (9, 0))
    for kind, mark in (("generated", GENERATED), ("restored", RESTORED)):
        save_marked(picture, source, kind)
        options = ("--model", grey_model, "--device", "cpu", "--steps", 1, "-o", f"{kind}.tif")
        assert command("upscale", source, *options).code == 0
        assert read_mark(Path(f"{kind}.tif")).mark["DigitalSourceType"] == mark


def test_maps_of_doubt_of_several_pages_say_it_too(upscale):
    mark = FileMark(source="generated", settings={"model": "m"})
    write_rasters(Path("a.tif"), [Raster(values=numbers(1, 10, 12))] * 2, 2, mark=mark)
    assert upscale("a.tif", "--map", "-n", 2).code == 0
    for name in ("a.tif", "a-doubt.tif", "a-doubt.png"):
        assert read_mark(Path("out", name)).mark["DigitalSourceType"] == GENERATED


def test_a_folder_of_bands_is_counted_by_its_marks(upscale, command):
    for name in ("a.tif", "a.npz"):
        write_scan(name)
    Path("in").mkdir()
    Path("a.tif").rename("in/a.tif")
    Path("a.npz").rename("in/b.npz")
    assert upscale("in").code == 0
    np.save("out/c.npy", numbers(4, 4))
    done = command("inspect", "out")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"3 images: 2 {RESTORED}, 1 without record or mark"


@pytest.mark.parametrize("shape", [(10, 12, 5), (10, 12)])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_sound_files_of_others_are_not_called_damaged(command, tmp_path, shape, dtype):
    file = tmp_path / "field.tif"
    values = numbers(*shape).astype(dtype)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
    done = command("inspect", file)
    assert (done.code, done.err) == (0, "")
    assert "none: Cascade did not make it" in done.out


# ---- between bands and colours ------------------------------------------------------------------


def test_a_damaged_volume_is_one_line(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = bytearray(write_scan("a.nii").read_bytes())
    data[70:72] = b"\5\5"  # the type of the numbers
    Path("a.nii").write_bytes(data)
    done = command("inspect", "a.nii")
    assert done.code == 1
    assert done.err.count("\n") == 1


def test_a_format_without_a_place_for_the_mark_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"\.npy holds numbers alone; write \.npz instead"):
        save_marked(Raster(values=numbers(1, 8, 8)), tmp_path / "a.npy", "generated")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def restorers(saved_pipeline, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("restorers")
    bands = Space(size_px=8, channels=2, range=(0, 250))
    colour = PairedImage(channels=3, range=(0, 255))
    contracts = {
        "bands": Contract(bands, (colour,)),
        "colours": Contract(Space(size_px=8), (PairedImage(channels=2, range=(0, 250)),)),
    }
    return {
        name: saved_pipeline("restorer", contract, folder / name)
        for name, contract in contracts.items()
    }


@pytest.mark.parametrize("source", [GENERATED, RESTORED])
def test_results_of_another_kind_carry_the_mark_too(
    command, restorers, draw, tmp_path, monkeypatch, source
):
    monkeypatch.chdir(tmp_path)
    image = Image.open(draw(Path("a.png")))
    if source == GENERATED:
        save_marked(image, "a.png", "generated")
    options = ("--device", "cpu", "--steps", 1)
    assert (
        command("restore", "a.png", "-o", "b.tif", "--model", restorers["bands"], *options).code
        == 0
    )
    assert read_mark(Path("b.tif")).mark["DigitalSourceType"] == source
    assert read_mark(Path("b.tif")).record["model"] == "bands"
    arguments = ("restore", "b.tif", "-o", "c.png", "--model", restorers["colours"], *options)
    assert command(*arguments).code == 0
    assert read_mark(Path("c.png")).mark["DigitalSourceType"] == source
    assert read_mark(Path("c.png")).record["model"] == "colours"
    assert command(*arguments).out == "0 restored, 1 already done\n"
    bare = command(
        "restore",
        "b.tif",
        "-o",
        "d.png",
        "--no-metadata",
        "--model",
        restorers["colours"],
        *options,
    )
    assert bare.code == 0, bare.err
    assert read_mark(Path("d.png")).mark == {}


def test_a_raster_without_a_file_is_written_unmarked_unless_it_is_asked(tmp_path):
    write_rasters(tmp_path / "a.tif", [Raster(values=np.zeros((1, 4, 4), np.uint8))])
    assert read_mark(tmp_path / "a.tif").mark == {}
