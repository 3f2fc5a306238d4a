"""`cascade restore` with models that make bands of another kind than they take."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile

from cascade import mapped_arrays
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.imaging.rasters.reading import read_raster
from cascade.restoration import restoring
from cascade.space import Space

TAKEN = PairedImage(channels=1, range=(0, 4000))


@pytest.fixture(scope="module")
def models(saved_pipeline, tmp_path_factory) -> dict[str, str]:
    """Folders of pipelines: one band to shares, levels, two bands, colours; and colours to two."""
    spaces = {
        "shares": Space(size_px=8, channels=1, range=(0, 1)),
        "levels": Space(size_px=8, channels=1, range=(0, 250)),
        "two": Space(size_px=8, channels=2, range=(0, 250)),
    }
    colour = PairedImage(channels=3, range=(0, 255))
    contracts = {name: Contract(space, (TAKEN,)) for name, space in spaces.items()}
    contracts["of colours"] = Contract(spaces["two"], (colour,))
    contracts["to colours"] = Contract(Space(size_px=8), (TAKEN,))
    folder = tmp_path_factory.mktemp("models")
    return {
        name: saved_pipeline("restorer", contract, folder / name)
        for name, contract in contracts.items()
    }


@pytest.fixture
def restore(command, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(source: str, model: str, *options: object, out: str = "out"):
        options = ("--model", models[model], "--device", "cpu", "--steps", 1, *options)
        return command("restore", source, "-o", out, *options)

    return run


def numbers(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, shape).astype(dtype)


# ---- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "result"), [((12, 8), (12, 8, 2)), ((3, 12, 8), (3, 12, 8, 2))])
def test_an_array_without_an_axis_of_bands_gets_one_if_its_result_has_several(
    restore, shape, result
):
    np.save("a.npy", numbers(*shape))
    assert restore("a.npy", "two").code == 0
    array = np.load("out/a.npy")
    assert (array.shape, array.dtype) == (result, np.uint8)
    assert array[..., 0].std() > 0
    assert not np.array_equal(array[..., 0], array[..., 1])


@pytest.mark.parametrize(("model", "dtype"), [("shares", np.float32), ("levels", np.uint8)])
def test_a_volume_is_written_in_the_type_and_the_unit_of_its_results(restore, model, dtype):
    nibabel = pytest.importorskip("nibabel")
    values = numbers(8, 12, 2, dtype="int16")
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), "a.nii.gz")
    assert restore("a.nii.gz", model).code == 0
    result = nibabel.load("out/a.nii.gz")
    assert result.get_data_dtype() == dtype
    assert np.array_equal(result.affine, affine)
    assert result.get_fdata().std() > 0
    assert model == "levels" or ((result.get_fdata() % 1) > 0).any()
    refused = restore("a.nii.gz", "two", out="two")
    assert refused.code == 1
    assert "each slice of the volume has 1 band, but its result has 2; write TIFF" in refused.err
    assert restore("a.nii.gz", "two", out="two.tif").code == 0
    assert tifffile.TiffFile("two.tif").pages[0].shape == (12, 8, 2)


def test_dicom_is_not_written_for_numbers_of_another_kind(restore):
    pydicom = pytest.importorskip("pydicom")
    head = pydicom.Dataset()
    head.file_meta = pydicom.dataset.FileMetaDataset()
    head.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    head.SOPClassUID = head.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    head.SOPInstanceUID = head.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    head.PixelRepresentation, head.PixelSpacing = 0, [0.5, 0.5]
    pydicom.pixels.set_pixel_data(head, numbers(12, 8), "MONOCHROME2", 12)
    head.save_as("a.dcm", enforce_file_format=True)
    refused = restore("a.dcm", "shares")
    assert refused.code == 1
    assert "DICOM is written for images that come from it and keep their bands" in refused.err
    assert restore("a.dcm", "shares", out="out.tif").code == 0
    result = tifffile.imread("out.tif")
    assert (result.dtype, result.shape) == (np.float32, (12, 8))
    assert np.unique(result).size > 2


def test_what_a_tiff_says_about_its_bands_does_not_hold_for_others(restore):
    values = numbers(12, 8)
    scale = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">2</Item></GDALMetadata>'
    tags = [(33550, "d", 3, (4.0, 4.0, 0.0), True), (33922, "d", 6, (0.0,) * 6, True)]
    tifffile.imwrite("a.tif", values, extratags=[*tags, (42112, "s", 0, scale, True)])
    assert restore("a.tif", "two").code == 0
    with tifffile.TiffFile(Path("out/a.tif")) as file:
        assert file.pages[0].tags[33550].value == (4.0, 4.0, 0.0)
        assert 42112 not in file.pages[0].tags


# ---- missing numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodata", "model", "dtype"), [(0, "levels", np.uint8), (3999, "levels", np.float32)]
)
def test_missing_pixels_stay_missing_in_bands_of_another_kind(restore, nodata, model, dtype):
    values = numbers(12, 8).clip(1, 3998)
    values[:3] = nodata
    tifffile.imwrite("a.tif", values, extratags=[(42113, "s", 0, str(nodata), True)])
    assert restore("a.tif", model).code == 0
    result = read_raster(Path("out/a.tif"))
    assert (result.values.dtype, result.nodata) == (dtype, nodata)
    assert result.missing is not None
    assert np.array_equal(result.missing[0], values == nodata)


def test_pixels_without_a_number_are_missing_in_all_bands(restore):
    values = numbers(12, 8, dtype="float32")
    values[4, 5] = np.nan
    np.save("a.npy", values)
    assert restore("a.npy", "two").code == 0
    missing = np.isnan(np.load("out/a.npy"))
    assert missing[4, 5].all()
    assert missing.sum() == 2
    assert "PNG" in restore("a.npy", "levels", out="a.png").err


def test_a_mean_over_seeds_keeps_missing_pixels(restore):
    values = numbers(12, 8)
    np.save("a.npy", values)
    low = values.min()
    assert restore("a.npy", "two", "--map", "-n", 2, "--nodata", low).code == 0
    missing = np.isnan(np.load("out/a-doubt.npy"))
    assert np.array_equal(missing[..., 0], values == low)


def test_results_are_stored_a_part_at_a_time(restore, monkeypatch):
    values = numbers(40, 8, dtype="float32")
    values[30] = np.nan
    np.save("a.npy", values)
    assert restore("a.npy", "two").code == 0
    parts = Mock(side_effect=restoring.as_stored)
    monkeypatch.setattr(restoring, "as_stored", parts)
    monkeypatch.setattr(mapped_arrays, "NUMBERS_AT_ONCE", 160)
    assert restore("a.npy", "two", out="b.npy").code == 0
    assert [call.args[0].shape for call in parts.call_args_list] == [(2, 10, 8)] * 4
    assert np.array_equal(np.load("b.npy"), np.load("out/a.npy"), equal_nan=True)


# ---- from colour pictures -----------------------------------------------------------------------


def test_every_page_of_a_picture_becomes_bands(restore):
    pages = [np.random.default_rng(n).integers(0, 256, (9, 8 + n, 3), np.uint8) for n in range(3)]
    with tifffile.TiffWriter("a.tif") as writer:
        for page in pages:
            writer.write(page, photometric="rgb")
    assert restore("a.tif", "of colours").code == 0
    with tifffile.TiffFile("out/a.tif") as file:
        assert [page.shape for page in file.pages] == [(9, 8 + n, 2) for n in range(3)]
    assert restore("a.tif", "of colours", "--pages", "first", out="first.tif").code == 0
    with tifffile.TiffFile("first.tif") as file:
        assert len(file.pages) == 1


def test_pictures_that_are_cut_off_or_transparent_are_remarked(restore, draw):
    data = draw(Path("a.jpg"), size=(40, 40)).read_bytes()
    Path("a.jpg").write_bytes(data[: len(data) - 200])
    assert restore("a.jpg", "of colours").code == 1
    kept = restore("a.jpg", "of colours", "--truncated", "keep")
    assert kept.code == 0, kept.err
    assert "is truncated; the missing part counts as grey" in kept.err
    draw(Path("b.webp"), mode="RGBA")
    assert "is transparent in places" in restore("b.webp", "of colours").err
    draw(Path("c.png"))
    assert "PNG holds one image of 1 or 3 bands" in restore("c.png", "of colours").err


# ---- dry runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "model", "options", "out", "reason"),
    [
        ("a.npy", "levels", (), "x.tif", ""),
        ("a.npy", "two", (), "x.png", "PNG holds one image of 1 or 3 bands"),
        ("c.jpg", "of colours", (), "x.tif", ""),
        ("c.jpg", "of colours", (), "x.png", "PNG holds one image of 1 or 3 bands"),
        ("c.jpg", "of colours", ("--map", "-n", 2), "x.tif", "a standard deviation needs a model"),
        ("a.npy", "to colours", (), "x.png", ""),
        ("a.npy", "to colours", ("--map", "-n", 2), "x.png", "a standard deviation needs a model"),
        ("stack.npy", "to colours", (), "x.png", "the file holds 2 images, but a colour image is"),
    ],
)
def test_a_dry_run_fails_where_the_run_does(restore, draw, source, model, options, out, reason):
    np.save("a.npy", numbers(12, 8))
    np.save("stack.npy", numbers(2, 12, 8))
    draw(Path("c.jpg"), size=(8, 12))
    rehearsed = restore(source, model, *options, "--dry-run", out=out)
    assert not Path(out).exists()
    done = restore(source, model, *options, out=out)
    assert rehearsed.code == done.code == int(bool(reason)), rehearsed.err
    for each in (rehearsed, done):
        assert reason in each.err
    if not reason:
        assert rehearsed.out.splitlines()[0] == f"to be made: {out}, 8x12 px"
