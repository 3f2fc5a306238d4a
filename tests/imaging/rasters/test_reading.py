"""Files of measured numbers: TIFF, DICOM, NIfTI and numpy."""

from __future__ import annotations

import io
import mmap
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from cascade import mapped_arrays
from cascade.errors import DataError
from cascade.imaging.rasters.dicom_numbers import StoredNumbers
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import count_rasters, decode_raster, read_raster
from cascade.imaging.rasters.writing import write_rasters
from cascade.space import Space

DRAW = np.random.default_rng(0)
BANDS = DRAW.integers(0, 10_000, (5, 6, 8)).astype(np.uint16)  # (C, H, W)


def tiff_bytes(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"metadata": None, **options})
    return file.getvalue()


def npy_bytes(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def count(data: bytes, layout: Layout | None = None) -> int:
    return count_rasters(io.BytesIO(data), "a", layout)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"planarconfig": "contig"},
        {"planarconfig": "separate"},
        {"planarconfig": "contig", "tile": (16, 16), "compression": "zlib"},
        {"planarconfig": "separate", "compression": "lzw", "predictor": 2},
        {"planarconfig": "contig", "bigtiff": True, "byteorder": ">"},
    ],
    ids=str,
)
def test_bands_of_tiff_keep_their_numbers_in_any_layout(dtype, options):
    values = (BANDS.astype(np.int32) - (3000 if dtype == "int16" else 0)).astype(dtype)
    if dtype == "float32":
        options = {key: value for key, value in options.items() if key != "predictor"}
    stored = values if options["planarconfig"] == "separate" else np.moveaxis(values, 0, -1)
    data = tiff_bytes(stored, photometric="minisblack", **options)
    raster = decode_raster(data, "a")
    assert raster.values.dtype == dtype
    assert np.array_equal(raster.values, values)
    assert count(data) == 1


def test_pages_are_images_unless_they_are_as_many_as_the_bands():
    data = tiff_bytes(BANDS, photometric="minisblack")
    assert count(data) == 5
    assert np.array_equal(decode_raster(data, "a", 2).values, BANDS[2:3])
    assert count(data, Layout(bands=5)) == 1
    assert np.array_equal(decode_raster(data, "a", 0, Layout(bands=5)).values, BANDS)
    with pytest.raises(DataError, match="a: has 5 images; there is no image 6"):
        decode_raster(data, "a", 5)


@pytest.mark.parametrize("axes", ["TCYX", "CTYX"])
def test_the_channels_of_ome_are_the_bands(axes):
    stack = DRAW.integers(0, 999, (2, 3, 6, 8)).astype(np.uint16)
    stored = stack if axes == "TCYX" else stack.swapaxes(0, 1)
    options = {"metadata": {"axes": axes}, "ome": True, "photometric": "minisblack"}
    data = tiff_bytes(stored, **options)
    assert count(data) == 2
    assert np.array_equal(decode_raster(data, "a", 1).values, stack[1])


def test_min_is_white_is_inverted_and_nodata_is_missing():
    data = tiff_bytes(BANDS[0], photometric="miniswhite")
    assert np.array_equal(decode_raster(data, "a").values[0], 65535 - BANDS[0])
    values = BANDS[0].astype(np.float32)
    values[2, 3] = -9999
    tag = (42113, "s", 0, "-9999", True)
    raster = decode_raster(tiff_bytes(values, photometric="minisblack", extratags=[tag]), "a")
    assert raster.nodata == -9999
    missing = raster.missing
    assert missing is not None
    assert np.argwhere(missing).tolist() == [[0, 2, 3]]
    unit = raster.unit_image(Space(size_px=8, channels=1, range=(0, 10_000)))
    around = unit[0, 1:4, 2:5]
    assert around.min() <= unit[0, 2, 3] <= around.max()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nodata_of_min_is_white_is_the_stored_number(dtype, tmp_path):
    top = np.iinfo(dtype).max
    stored = np.array([[0, 10, top, 100]], dtype)
    tag = (42113, "s", 0, "0", True)
    data = tiff_bytes(stored, photometric="miniswhite", extratags=[tag])
    raster = decode_raster(data, "a")
    missing = raster.missing
    assert missing is not None
    assert missing[0, 0].tolist() == [True, False, False, False]
    write_rasters(tmp_path / "a.tif", [raster])
    again = read_raster(tmp_path / "a.tif")
    assert again.nodata == top
    assert np.array_equal(again.values[0], top - stored)
    assert again.missing is not None
    assert np.array_equal(again.missing, missing)


def test_another_number_for_missing_ones_is_missing_beside_that_of_the_file():
    values = np.array([[[1, 2, 3, -9999]]], np.int16)
    both = Raster(values=values, nodata=-9999).with_nodata(2)
    assert both.nodata == -9999
    assert both.missing is not None
    assert both.missing.tolist() == [[[False, True, False, True]]]
    assert Raster(values=values).with_nodata(2).nodata == 2
    assert Raster(values=values.astype(np.uint16), nodata=-9999).with_nodata(2).nodata == 2
    assert Raster(values=values, nodata=3).with_nodata(70_000).nodata == 3


@pytest.mark.parametrize("number", [70_000, -1, 0.5, float("nan"), float("inf")])
def test_a_number_for_missing_ones_that_no_pixel_can_have_is_refused(number):
    raster = Raster(values=np.zeros((1, 2, 2), np.uint16))
    with pytest.raises(DataError, match=r"no value of type uint16 can be .* from 0 to 65535"):
        raster.with_nodata(number)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_are_turned_upright_unless_their_stored_pixels_have_places(tmp_path, orientation):
    options = {"photometric": "minisblack", "resolution": (100, 300)}
    turn = (274, "H", 1, orientation, True)
    data = tiff_bytes(BANDS[0], extratags=[turn], **options)
    raster = decode_raster(data, "a")
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(raster.values[0], np.asarray(expected))
    assert raster.origin.resolution == ((300, 100) if orientation > 4 else (100, 300))
    places = [(33550, "d", 3, (1.0, 1, 0), True), (33922, "d", 6, (0.0, 0, 0, 5, 6, 0), True)]
    stored = decode_raster(tiff_bytes(BANDS[0], extratags=[turn, *places], **options), "a")
    assert np.array_equal(stored.values[0], BANDS[0])
    write_rasters(tmp_path / "b.tif", [stored])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages[0].tags.valueof(274, 1) == orientation


@pytest.mark.parametrize(
    ("array", "layout", "images"),
    [
        (BANDS, Layout(5), [BANDS]),
        (np.moveaxis(BANDS, 0, -1), Layout(5), [BANDS]),
        (np.moveaxis(BANDS, 0, -1), Layout(), [BANDS]),
        (BANDS[0], Layout(1), [BANDS[:1]]),
        (BANDS, Layout(1), [BANDS[i : i + 1] for i in range(5)]),
        (np.stack([BANDS, BANDS + 1]), Layout(5), [BANDS, BANDS + 1]),
        (np.moveaxis(np.stack([BANDS, BANDS + 1]), 1, -1), Layout(5), [BANDS, BANDS + 1]),
    ],
)
def test_arrays_are_divided_by_the_number_of_bands(array, layout, images):
    for data in (npy_bytes(array), npz_bytes(anything=array), npz_bytes(image=array, other=array)):
        assert count(data, layout) == len(images)
        for number, image in enumerate(images):
            assert np.array_equal(decode_raster(data, "a", number, layout).values, image)


def test_pictures_are_bands_in_the_numbers_of_their_file(tmp_path):
    Image.fromarray(BANDS[0]).save(tmp_path / "deep.png")
    assert np.array_equal(read_raster(tmp_path / "deep.png").values, BANDS[:1])
    rgb = DRAW.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    assert np.array_equal(read_raster(tmp_path / "rgb.png").values, np.moveaxis(rgb, -1, 0))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy_bytes(np.zeros((3, 4))), "type float64.*save it as float32"),
        (npy_bytes(np.array([{}]), allow_pickle=True), "holds Python objects"),
        (npy_bytes(np.zeros(4, np.uint8)), "has 1 dimensions"),
        (npz_bytes(a=BANDS, b=BANDS), "holds the arrays a, b; save one, or call it 'image'"),
        (npy_bytes(BANDS)[:-9], "not a readable image"),
        (npz_bytes(a=BANDS)[:-90], "not a readable image"),
        (tiff_bytes(BANDS.astype(np.int32)[0]), "values of type int32.*save it as"),
        (tiff_bytes(BANDS.astype(np.float64)[0]), "values of type float64.*save it as float32"),
        (tiff_bytes(BANDS[0])[:-40], "not a readable image"),
        (tiff_bytes(np.zeros((65, 4, 4), np.uint8), planarconfig="separate"), "has 65 bands"),
        (bytes(128) + b"DICM" + bytes(50), "not a readable image|no pixels"),
        (b"", "the file is empty"),
        (b"what is this", "none of PNG"),
    ],
)
def test_files_that_are_not_read_are_refused_in_one_line(data, words):
    with pytest.raises(DataError, match=words) as error:
        decode_raster(data, "some.file")
    assert str(error.value).startswith("some.file: ")
    assert "\n" not in str(error.value)


# ---- medical files ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dicom_files() -> Path:
    pydicom = pytest.importorskip("pydicom")
    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def nifti_files() -> Path:
    nibabel = pytest.importorskip("nibabel")
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    if not folder.is_dir():
        pytest.skip("nibabel came without its test files")
    return folder


def test_dicom_gives_hounsfield_units(dicom_files):
    import pydicom

    path = dicom_files / "CT_small.dcm"
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    raster = read_raster(path)
    assert raster.values.dtype == np.float32  # 16 bits beside an intercept may leave int16
    assert np.array_equal(raster.values[0], expected)


@pytest.mark.parametrize(
    ("brightest", "slope", "dtype"),
    [(200, 1, "int16"), (4095, 1, "int16"), (200, 0.5, "float32"), (200, 16, "float32")],
)
def test_the_type_of_a_frame_follows_from_the_head_of_its_file(
    dicom_files, brightest, slope, dtype
):
    import pydicom

    dataset = pydicom.dcmread(dicom_files / "CT_small.dcm")
    pixels = np.full((128, 128), 7, np.uint16)
    pixels[0, 0] = brightest
    del dataset.PixelPaddingValue
    dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
    dataset.PixelData, dataset.RescaleSlope = pixels.tobytes(), slope
    values = decode_raster(saved(dataset), "a").values
    assert values.dtype == dtype
    assert values[0, 0, 0] == brightest * slope - 1024


def test_numbers_of_more_bits_than_a_file_declares_are_refused():
    numbers = StoredNumbers(signed=False, bits=12, intercept=-1024.0)
    stored = np.array([0, 4095], np.uint16)
    assert numbers.measured(stored, np.dtype("int16")).tolist() == [-1024, 3071]
    with pytest.raises(DataError, match="such as 4096, which need more than the 12 bits"):
        numbers.measured(stored + np.uint16(1), np.dtype("int16"))


def saved(dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def test_a_lookup_table_of_dicom_is_refused(dicom_files):
    import pydicom

    dataset = pydicom.dcmread(dicom_files / "CT_small.dcm")
    table = pydicom.Dataset()
    table.LUTExplanation = "density"
    dataset.ModalityLUTSequence = pydicom.Sequence([table])
    with pytest.raises(DataError, match="a: has a lookup table for its values"):
        decode_raster(saved(dataset), "a")


def test_monochrome1_is_inverted(dicom_files):
    import pydicom

    dataset = pydicom.dcmread(dicom_files / "MR_small.dcm")
    plain = read_raster(dicom_files / "MR_small.dcm").values
    dataset.PhotometricInterpretation = "MONOCHROME1"
    file = io.BytesIO()
    dataset.save_as(file)
    assert np.array_equal(decode_raster(file.getvalue(), "a").values, -1 - plain)


def test_frames_of_dicom_are_images(dicom_files):
    data = (dicom_files / "SC_rgb_rle_2frame.dcm").read_bytes()
    assert count(data) == 2
    first, second = (decode_raster(data, "a", number).values for number in (0, 1))
    assert first.shape == (3, 100, 100)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rtplan.dcm", "no pixels; give one with PixelData"),
        ("rtdose.dcm", "values of 32 bits; 8 and 16 are read"),
        ("liver_1frame.dcm", "has values of 1 bit; 8 and 16 are read"),
        ("examples_palette.dcm", "has a palette"),
        ("MR_truncated.dcm", "not a readable image"),
        ("JPEGLSNearLossless_16.dcm", "needs another decoder of pydicom"),
        ("JPEG-lossy.dcm", "needs another decoder of pydicom"),
    ],
)
def test_dicom_that_is_not_read_is_refused_in_one_line(dicom_files, name, words, caplog):
    with pytest.raises(DataError, match=words) as error:
        decode_raster((dicom_files / name).read_bytes(), "some.dcm")
    assert str(error.value).startswith("some.dcm: ")
    assert "\n" not in str(error.value)
    assert caplog.records == []  # pydicom would log tracebacks


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_are_cut_along_an_axis(nifti_files, axis):
    import nibabel

    path = nifti_files / "anatomical.nii"
    volume = np.asarray(nibabel.load(path).dataobj)
    data, layout = path.read_bytes(), Layout(axis=axis)
    assert count(data, layout) == volume.shape[axis]
    expected = np.take(volume, 7, axis).T
    assert np.array_equal(decode_raster(data, "a", 7, layout).values[0], expected)


def test_a_series_of_volumes_has_the_slices_of_each_in_turn(nifti_files):
    import nibabel

    path = nifti_files / "example4d.nii.gz"
    volume = np.asarray(nibabel.load(path).dataobj)  # (128, 96, 24, 2)
    data = path.read_bytes()
    assert count(data) == 48
    assert np.array_equal(decode_raster(data, "a", 24 + 5).values[0], volume[:, :, 5, 1].T)
    two = decode_raster(data, "a", 5, Layout(bands=2)).values
    assert np.array_equal(two, volume[:, :, 5, :].transpose(2, 1, 0))
    with pytest.raises(DataError, match="has 24 slices; there is no slice 25"):
        decode_raster(data, "a", 24, Layout(bands=2))


def test_a_volume_is_unpacked_once_for_all_its_slices(nifti_files, monkeypatch):
    from cascade.imaging.rasters import nifti

    data, calls, unpack = (nifti_files / "example4d.nii.gz").read_bytes(), [], nifti.open_nifti
    monkeypatch.setattr(nifti, "open_nifti", lambda *each: calls.append(1) or unpack(*each))
    slices = [decode_raster(data, "once", number) for number in range(3)]
    assert len(calls) == 1
    assert slices[0].origin.image is slices[2].origin.image


def test_the_slope_of_a_volume_is_applied(nifti_files):
    import nibabel

    path = nifti_files / "functional.nii"
    expected = nibabel.load(path).get_fdata()[:, :, 1, 3].T
    slice_ = read_raster(path, 3 * 3 + 1).values
    assert slice_.dtype == np.float32
    assert np.allclose(slice_[0], expected, rtol=1e-6)


# ---- large files --------------------------------------------------------------------------------


def test_large_images_are_files_after_every_step_of_reading(monkeypatch):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for band in BANDS:
            writer.write(band, photometric="minisblack", metadata=None)
    expected = np.where(np.isin(BANDS, BANDS[0, 0, 0]), 9, BANDS)
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 50)
    raster = decode_raster(file.getvalue(), "a", layout=Layout(bands=5))
    assert is_file(raster.values)
    changed = Raster(values=raster.values, nodata=9).with_nodata(int(BANDS[0, 0, 0]))
    assert is_file(changed.values)
    assert np.array_equal(raster.values, BANDS)
    assert np.array_equal(changed.values, expected)


def is_file(values: np.ndarray) -> bool:
    """Whether an array is a view of a file."""
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap) or (
        isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)
    )


def test_paths_may_be_strings(tmp_path):
    raster = Raster(values=np.arange(12, dtype=np.uint16).reshape(1, 3, 4))
    write_rasters(str(tmp_path / "a.tif"), [raster])
    assert np.array_equal(read_raster(str(tmp_path / "a.tif")).values, raster.values)
