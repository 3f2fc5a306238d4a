"""Upscaled images of bands keep the bands, the type, the place and the missing numbers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from cascade import mapped_arrays
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.diffusion import noise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, OutputError
from cascade.imaging.rasters import tiff_writing
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster, outside_shares
from cascade.imaging.rasters.reading import count_rasters, open_rasters, read_raster
from cascade.imaging.rasters.tiff_origin import TiffOrigin
from cascade.imaging.rasters.writing import write_rasters
from cascade.pipeline import CascadePipeline
from cascade.resizing import resize
from cascade.restoration import kept_areas
from cascade.restoration.bands import ClippedNumbers, as_stored
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


def pipeline_of(channels: int, range) -> CascadePipeline:
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(
            Space(size_px=32, channels=channels, range=range),
            (LowResolution(size_px=16, quantised=False),),
        ),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1),
        embedding_dim=32,
    ).eval()
    pipeline = CascadePipeline.from_stages({"up": stage})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def one_band():
    return pipeline_of(1, (-2000, 15_000))


@pytest.fixture(scope="module")
def five_bands():
    return pipeline_of(5, ((0, 1000), (0, 10_000), (0, 10_000), (0, 10_000), (0, 5000)))


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_result_has_the_type_the_range_and_the_gaps_of_its_input(five_bands, dtype):
    draw = np.random.default_rng(0)
    values = (draw.random((5, 12, 16)) * 900).astype(dtype)
    values[1, 2:4, 3:6] = 7
    raster = Raster(values=values, nodata=7)
    result = five_bands.upscale(raster)
    assert result.values.dtype == dtype
    assert result.values.shape == (5, 24, 32)
    expected = (values == 7).repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(result.missing, expected)
    assert result.values[1].max() > 255
    assert np.array_equal(five_bands.upscale(raster).values, result.values)


def test_a_result_agrees_with_its_input_in_every_band_when_downscaled_again(five_bands):
    draw = np.random.default_rng(3)
    coarse = torch.from_numpy(draw.random((1, 5, 4, 4)))
    smooth = torch.nn.functional.interpolate(coarse, (16, 16), mode="bicubic")[0].numpy()
    tops = np.array([1000, 10_000, 10_000, 10_000, 5000])[:, None, None]
    values = np.rint((0.3 + 0.4 * smooth.clip(0, 1)) * tops).astype(np.uint16)
    space, errors = five_bands.stages.last.space, []
    for consistent in (True, False):
        result = five_bands.upscale(Raster(values=values), consistent=consistent)
        small = resize(result.unit_image(space)[None], (16, 16), space.resize_kernel)[0]
        errors.append((space.from_unit(small).numpy() - values) / tops)
    errors = [np.abs(each).max(axis=(1, 2)) for each in errors]
    assert (errors[0] < 0.003).all()
    assert (errors[1] > 0.02).all()


def test_large_images_are_files_in_parts_and_have_the_same_results(five_bands, monkeypatch):
    values = (np.random.default_rng(5).random((5, 40, 24)) * 900).astype(np.uint16)
    values[2, 10:30, 5:9] = 7
    raster = Raster(values=values, nodata=7)
    expected = five_bands.upscale(raster, tile_px=32)
    shares = outside_shares(raster, five_bands.stages.last.space)
    files = []
    allocate = mapped_arrays.tempfile.TemporaryFile
    monkeypatch.setattr(
        mapped_arrays.tempfile, "TemporaryFile", lambda: files.append(1) or allocate()
    )
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 1000)
    for module in (mapped_arrays, noise, kept_areas):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 2000)
    monkeypatch.setattr(kept_areas, "LEAST_BAND_PX", 8)
    result = five_bands.upscale(raster, tile_px=32)
    assert np.array_equal(result.values, expected.values)
    assert outside_shares(raster, five_bands.stages.last.space) == shares
    assert len(files) >= 4  # input, canvas, steps' noise and result


def test_a_number_that_means_missing_is_not_drawn():
    space = Space(size_px=2, channels=1, range=(0, 10))
    raster = Raster(values=np.zeros((1, 2, 2), np.uint8), nodata=0)
    image = torch.tensor([[-1.0, 0.0], [1.0, -1.0]])[None]
    assert as_stored(image, space, raster).tolist() == [[[1, 5], [10, 1]]]


@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", -9999), ("int16", 65535), ("uint8", 0.5)])
def test_a_number_for_missing_ones_that_the_type_cannot_hold_means_none(dtype, nodata):
    raster = Raster(values=np.zeros((1, 2, 2), dtype), nodata=nodata)
    stored = as_stored(torch.zeros(1, 2, 2), Space(size_px=2, channels=1, range=(0, 100)), raster)
    assert stored.dtype == dtype
    assert (stored == 50).all()


def test_numbers_outside_of_the_range_are_counted_over_all_images(five_bands):
    space = five_bands.stages.last.space
    low, high, both = (np.full((5, 8, 8), level, np.uint16) for level in (900, 2000, 2000))
    both[:, 4:] = 0
    clipped = ClippedNumbers(space)
    clipped.add(Raster(values=low))
    assert clipped.remark == ""
    clipped.add(Raster(values=both))
    clipped.add(Raster(values=high))
    clipped.add(Raster(values=low))
    assert clipped.remark.endswith(
        "in 2 of 4 images, most in image 3: 100 % of band 1 outside 0 to 1000"
    )
    alone = ClippedNumbers(space)
    alone.add(Raster(values=both))
    assert alone.remark.endswith("clipped: 50 % of band 1 outside 0 to 1000")


def test_other_bands_than_those_of_the_model_are_refused(five_bands, one_band):
    with pytest.raises(ContractError, match="has 4 bands, but the model takes 5"):
        five_bands.upscale(Raster(values=np.zeros((4, 8, 8), np.uint16)))
    with pytest.raises(ContractError, match="an image of bands does not fit here"):
        one_band.colourise(Raster(values=np.zeros((1, 8, 8), np.uint8)))


# ---- TIFF ---------------------------------------------------------------------------------------

KEYS = (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1)  # pixels are areas
POINT_KEYS = (*KEYS[:-1], 2)


def geotiff(path: Path, tags) -> None:
    values = np.arange(5 * 12 * 16, dtype=np.uint16).reshape(5, 12, 16)
    extra = [(number, kind, len(value), value, True) for number, kind, value in tags]
    extra.append((42113, "s", 0, "3", True))
    tifffile.imwrite(
        path, values, photometric="minisblack", planarconfig="separate", metadata=None,
        extratags=extra, resolution=(100, 200), resolutionunit=3,
    )  # fmt: skip


def corners(path: Path) -> np.ndarray:
    """Where the corners of a GeoTIFF lie on the map, from the tags alone."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        keys = np.array(page.tags[34735].value).reshape(-1, 4)
        offset = 0.5 if any(key == 1025 and value == 2 for key, _, _, value in keys) else 0.0
        places = np.array([[0, 0], [page.imagewidth, page.imagelength]], float) - offset
        if 34264 in page.tags:
            matrix = np.array(page.tags[34264].value).reshape(4, 4)
            homogeneous = np.c_[places, np.zeros(2), np.ones(2)]
            return (homogeneous @ matrix.T)[:, :2]
        i, j, _, x, y, _ = page.tags[33922].value
        scale_x, scale_y, _ = page.tags[33550].value
        return np.array([x, y]) + (places - [i, j]) * [scale_x, -scale_y]


@pytest.mark.parametrize("keys", [KEYS, POINT_KEYS], ids=["areas", "points"])
@pytest.mark.parametrize(
    "tags",
    [
        [(33550, "d", (4.0, 4.0, 0.0)), (33922, "d", (0.0, 0.0, 0.0, 500_000.0, 6_000_000.0, 0.0))],
        [(33550, "d", (4.0, 5.0, 0.0)), (33922, "d", (8.0, 6.0, 0.0, 500_000.0, 6_000_000.0, 0.0))],
        [(34264, "d", (4.0, 0.5, 0, 9e5, 0.25, -4.0, 0, 5e6, 0, 0, 1, 0, 0, 0, 0, 1.0))],
    ],
    ids=["corner", "middle", "matrix"],
)
def test_a_geotiff_keeps_its_bounds_and_its_nodata(five_bands, tmp_path, tags, keys):
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    geotiff(source, [*tags, (34735, "H", keys)])
    raster = read_raster(source)
    write_rasters(target, [five_bands.upscale(raster)])
    assert np.allclose(corners(source), corners(target), rtol=0, atol=1e-6)
    with tifffile.TiffFile(target) as file:
        page = file.pages[0]
        assert (page.imagewidth, page.imagelength, page.samplesperpixel) == (32, 24, 5)
        if 33550 in page.tags:
            assert page.tags[33550].value[0] == 2.0
        assert page.tags[282].value[0] / page.tags[282].value[1] == 200
        assert page.tags[283].value[0] / page.tags[283].value[1] == 400
    result = read_raster(target)
    assert result.nodata == 3
    assert np.array_equal(result.missing, raster.missing.repeat(2, axis=1).repeat(2, axis=2))


def test_rational_polynomials_keep_their_places(tmp_path):
    numbers = [0.0, 0, 9, 11, 50, 8, 100, 10, 12, *range(83)]
    values = np.zeros((1, 20, 24), np.uint16)
    tag = (50844, "d", 92, numbers, True)
    tifffile.imwrite(tmp_path / "a.tif", values[0], metadata=None, extratags=[tag])
    origin = read_raster(tmp_path / "a.tif").origin.scaled(2, 3)
    write_rasters(tmp_path / "b.tif", [Raster(values=values, origin=origin)])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        written = file.pages[0].tags[50844].value
    assert written[2:4] == (18.5, 34)  # pixels are counted by their centres
    assert written[7:9] == (20, 36)
    assert written[9:] == tuple(numbers[9:])


def test_metadata_of_gdal_beyond_ascii_and_the_meaning_of_bands_are_kept(tmp_path):
    text = '<GDALMetadata><Item name="DESCRIPTION">grün µm</Item></GDALMetadata>'
    tag = (42112, "s", 0, text.encode(), True)
    values = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(8, 8, 4)
    tifffile.imwrite(
        tmp_path / "a.tif", values, metadata=None, extratags=[tag], photometric="rgb",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    write_rasters(tmp_path / "b.tif", [read_raster(tmp_path / "a.tif")])
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages[0]
        assert page.tags[42112].value == text
        assert int(page.photometric) == 2
        assert tuple(map(int, page.extrasamples)) == (2,)
        assert np.array_equal(page.asarray(), values)


def test_an_ome_tiff_has_its_pixel_size_brought_up_to_date(tmp_path):
    stack = np.arange(2 * 3 * 8 * 8, dtype=np.uint16).reshape(2, 3, 8, 8)
    metadata = {
        "axes": "TCYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm", "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata=metadata)
    images = [read_raster(tmp_path / "a.ome.tif", number) for number in range(2)]
    doubled = [
        replace(each, values=each.values.repeat(2, 1).repeat(2, 2), origin=each.origin.scaled(2, 2))
        for each in images
    ]
    write_rasters(tmp_path / "b.ome.tif", doubled, 2)
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        assert file.series[0].axes == "TCYX"
        assert file.series[0].shape == (2, 3, 16, 16)
        text = file.ome_metadata
    assert 'PhysicalSizeX="0.25"' in text
    assert 'PhysicalSizeY="0.125"' in text
    assert 'Name="GFP"' in text
    for number, image in enumerate(doubled):
        assert np.array_equal(read_raster(tmp_path / "b.ome.tif", number).values, image.values)


@pytest.mark.parametrize("most_bytes", [2**26, 1000], ids=["strips", "tiles"])
@pytest.mark.parametrize("shape", [(1, 600, 40), (5, 530, 300)])
def test_images_of_many_strips_or_tiles_are_written_whole(tmp_path, monkeypatch, shape, most_bytes):
    monkeypatch.setattr(tiff_writing, "IN_MEMORY_BYTES", most_bytes)
    monkeypatch.setattr(tiff_writing, "TILE_PX", 128)
    images = [np.random.default_rng(n).integers(0, 9999, shape).astype(np.uint16) for n in (0, 1)]
    write_rasters(tmp_path / "a.tif", [Raster(values=each) for each in images], 2)
    origin = TiffOrigin(tags={}, ome={"PhysicalSizeX": 1.0})
    ome = [Raster(values=each, origin=origin) for each in images]
    write_rasters(tmp_path / "a.ome.tif", iter(ome), 2)
    for name in ("a.tif", "a.ome.tif"):
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.pages[0].is_tiled == (most_bytes == 1000)
        for number, image in enumerate(images):
            assert np.array_equal(read_raster(tmp_path / name, number).values, image)


# ---- arrays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("shape", "bands", "expected"),
    [
        ((8, 8), 1, (16, 16)),
        ((3, 8, 9), 1, (3, 16, 18)),
        ((5, 8, 9), 5, (5, 16, 18)),
        ((8, 9, 5), 5, (16, 18, 5)),
        ((2, 5, 8, 9), 5, (2, 5, 16, 18)),
        ((2, 8, 9, 5), 5, (2, 16, 18, 5)),
        ((1, 5, 8, 9), 5, (1, 5, 16, 18)),
    ],
)
def test_an_array_keeps_the_order_of_its_axes(tmp_path, suffix, shape, bands, expected):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    layout = Layout(bands)
    with (tmp_path / "a.npy").open("rb") as file:
        count = count_rasters(file, "a", layout)
    images = [read_raster(tmp_path / "a.npy", number, layout) for number in range(count)]
    doubled = [replace(each, values=each.values.repeat(2, 1).repeat(2, 2)) for each in images]
    target = tmp_path / f"b{suffix}"
    write_rasters(target, doubled, count)
    written = np.load(target)
    written = written["image"] if suffix == ".npz" else written
    assert written.shape == expected
    assert written.dtype == np.int16
    for number, image in enumerate(doubled):
        assert np.array_equal(read_raster(target, number, layout).values, image.values)


def test_an_array_takes_no_images_of_several_types(tmp_path):
    images = [Raster(values=np.ones((1, 4, 4), kind)) for kind in ("int16", "uint16")]
    with pytest.raises(OutputError, match=r"one shape and one type, got \(1, 4, 4\) of int16 and"):
        write_rasters(tmp_path / "a.npy", images, 2)


# ---- medical files ------------------------------------------------------------------------------


def test_dicom_keeps_its_place_and_its_spacing_is_divided(one_band, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    raster = read_raster(source)
    result = one_band.upscale(raster)
    write_rasters(tmp_path / "b.dcm", [result])
    before, after = pydicom.dcmread(source), pydicom.dcmread(tmp_path / "b.dcm")
    assert (after.Rows, after.Columns) == (256, 256)
    assert np.allclose(np.array(after.PixelSpacing, float) * 2, np.array(before.PixelSpacing))
    assert (after.RescaleIntercept, after.BitsStored) == (before.RescaleIntercept, 16)
    assert after.PatientID == before.PatientID
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.StudyInstanceUID == before.StudyInstanceUID
    write_rasters(tmp_path / "c.dcm", [result])  # as of another image of the series
    other = pydicom.dcmread(tmp_path / "c.dcm")
    assert other.SeriesInstanceUID == after.SeriesInstanceUID
    assert other.SOPInstanceUID != after.SOPInstanceUID
    assert after.ImageType[0] == "DERIVED"

    def corner(dataset):
        along_row, along_column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        rows, columns = np.array(dataset.PixelSpacing, float)
        half = along_row * columns / 2 + along_column * rows / 2
        return np.array(dataset.ImagePositionPatient, float) - half

    assert np.allclose(corner(after), corner(before), atol=1e-4)
    assert np.array_equal(read_raster(tmp_path / "b.dcm").values, np.rint(result.values))


def test_inverted_frames_of_dicom_come_back_as_they_were(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    dataset = pydicom.dcmread(folder / "MR_small.dcm")
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, -3
    file = io.BytesIO()
    dataset.save_as(file)
    (tmp_path / "a.dcm").write_bytes(file.getvalue())
    raster = read_raster(tmp_path / "a.dcm")
    write_rasters(tmp_path / "b.dcm", [raster, raster], 2)
    for number in range(2):
        assert np.array_equal(read_raster(tmp_path / "b.dcm", number).values, raster.values)
    assert np.array_equal(pydicom.dcmread(tmp_path / "b.dcm").pixel_array[1], dataset.pixel_array)


def enhanced_dicom(path: Path) -> None:
    """Write a file of three frames with functional groups."""
    pydicom = pytest.importorskip("pydicom")

    def item(**values):
        dataset = pydicom.Dataset()
        for key, value in values.items():
            is_item = isinstance(value, pydicom.Dataset)
            setattr(dataset, key, pydicom.Sequence([value]) if is_item else value)
        return dataset

    source = Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm"
    dataset = pydicom.dcmread(source)
    for key in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
        del dataset[key]
    frames = np.stack([dataset.pixel_array + number for number in range(3)])
    dataset.PixelData, dataset.NumberOfFrames = frames.tobytes(), 3
    shared = item(
        PixelMeasuresSequence=item(PixelSpacing=[0.5, 0.25]),
        PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    dataset.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(
        item(
            PlanePositionSequence=item(ImagePositionPatient=[10, 20, 30 + number]),
            PixelValueTransformationSequence=item(
                RescaleSlope=slope, RescaleIntercept=-number, RescaleType="US"
            ),
        )
        for number, slope in enumerate([1, 0.5, 2])
    )
    dataset.save_as(path)


def test_functional_groups_of_dicom_state_numbers_and_places(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    enhanced_dicom(tmp_path / "a.dcm")
    stored = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    with (tmp_path / "a.dcm").open("rb") as stream:
        file = open_rasters(stream, "a", Layout())
        frames = [file.image(number) for number in range(3)]
    for number, (slope, frame) in enumerate(zip([1, 0.5, 2], frames, strict=True)):
        assert frame.values.dtype == np.float32  # one type for all, though some fit int16
        assert np.array_equal(frame.values[0], stored[number] * slope - number)
    doubled = [
        replace(each, values=each.values.repeat(2, 1).repeat(2, 2), origin=each.origin.scaled(2, 2))
        for each in frames
    ]
    for count in (3, 1):
        write_rasters(tmp_path / "b.dcm", doubled[:count], count)
        after = pydicom.dcmread(tmp_path / "b.dcm")
        groups = after.PerFrameFunctionalGroupsSequence
        assert (after.NumberOfFrames, len(groups)) == (count, count)
        shared = after.SharedFunctionalGroupsSequence[0]
        assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.25, 0.125]
        for number, group in enumerate(groups):
            place = group.PlanePositionSequence[0].ImagePositionPatient
            assert place == [10 - 0.0625, 20 - 0.125, 30 + number]
            values = read_raster(tmp_path / "b.dcm", number).values
            assert np.array_equal(values, doubled[number].values)


def test_padding_of_dicom_is_missing_and_comes_back(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    dataset = pydicom.dcmread(folder / "CT_small.dcm")
    pixels = dataset.pixel_array.copy()
    pixels[:3], pixels[3:5] = -2000, -1990
    dataset.PixelData = pixels.tobytes()
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1990)
    dataset.save_as(tmp_path / "a.dcm")
    raster = read_raster(tmp_path / "a.dcm")
    assert raster.nodata == -2000 - 1024
    assert raster.missing is not None
    assert np.array_equal(raster.missing[0].all(axis=1), np.arange(128) < 5)
    write_rasters(tmp_path / "b.dcm", [raster])
    pixels[:5] = -2000
    assert np.array_equal(pydicom.dcmread(tmp_path / "b.dcm").pixel_array, pixels)


@pytest.mark.parametrize(("volumes", "bands"), [(1, 1), (2, 1), (2, 2)])
def test_the_first_slice_of_a_nifti_volume_is_a_volume_with_its_bands(tmp_path, volumes, bands):
    nibabel = pytest.importorskip("nibabel")
    volume = np.arange(6 * 5 * 4 * volumes, dtype=np.int16).reshape(6, 5, 4, volumes)
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    first = read_raster(tmp_path / "a.nii.gz", 0, Layout(bands))
    write_rasters(tmp_path / "b.nii.gz", [first], 1)
    written = np.asarray(nibabel.load(tmp_path / "b.nii.gz").dataobj)
    assert np.array_equal(written, volume[:, :, :1, :bands])


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        *(("anatomical.nii", axis) for axis in range(3)),
        ("functional.nii", 2),
        ("example4d.nii.gz", 2),
    ],
)
def test_a_nifti_volume_keeps_its_bounds_and_its_numbers(tmp_path, name, axis):
    nibabel = pytest.importorskip("nibabel")
    source = Path(nibabel.__file__).parent / "tests" / "data" / name
    if not source.exists():
        pytest.skip("nibabel came without its test files")
    before, layout = nibabel.load(source), Layout(axis=axis)
    data = source.read_bytes()
    count = count_rasters(io.BytesIO(data), name, layout)
    images = [read_raster(source, number, layout) for number in range(count)]
    doubled = [
        replace(each, values=each.values.repeat(2, 1).repeat(2, 2), origin=each.origin.scaled(2, 2))
        for each in images
    ]
    target = tmp_path / f"b{''.join(source.suffixes)}"
    write_rasters(target, doubled, count)
    after = nibabel.load(target)
    factors = np.array([1 if each == axis else 2 for each in range(3)])
    assert after.shape[:3] == tuple(np.array(before.shape[:3]) * factors)
    assert after.shape[3:] == before.shape[3:]
    for end in (np.zeros(3), np.array(before.shape[:3])):
        old = before.affine @ [*(end - 0.5), 1]
        new = after.affine @ [*(end * factors - 0.5), 1]
        assert np.allclose(old, new, atol=1e-3)
    assert after.get_data_dtype() == before.get_data_dtype()
    assert np.allclose(after.header.get_zooms()[:3] * factors, before.header.get_zooms()[:3])
    expected = before.get_fdata()
    for each in {0, 1, 2} - {axis}:
        expected = expected.repeat(2, axis=each)
    assert np.allclose(after.get_fdata(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "raster", "count", "words"),
    [
        ("a.dcm", np.zeros((1, 4, 4), np.int16), 1, "DICOM is written for images that come from"),
        ("a.nii.gz", np.zeros((1, 4, 4), np.int16), 1, "NIfTI is written for images that come"),
        ("a.png", np.zeros((4, 4, 4), np.uint8), 1, "PNG holds one image of 1 or 3 bands"),
        ("a.png", np.zeros((1, 4, 4), np.float32), 1, "PNG holds one image of 1 or 3 bands"),
        ("a.png", np.zeros((1, 4, 4), np.uint8), 2, "PNG holds one image of 1 or 3 bands"),
        ("a.jpg", np.zeros((1, 4, 4), np.uint8), 1, "the ending '.jpg' names no format for bands"),
    ],
)
def test_files_that_cannot_hold_the_bands_are_refused(tmp_path, name, raster, count, words):
    with pytest.raises(OutputError, match=words) as error:
        write_rasters(tmp_path / name, [Raster(values=raster)] * count, count)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


# ---- arrays -------------------------------------------------------------------------------------


def test_arrays_of_whole_numbers_hold_the_numbers_of_their_bands(one_band, five_bands):
    """As a file does; that their type's largest number were white would make them nearly black."""
    draw = np.random.default_rng(5)
    one = draw.integers(200, 3000, (12, 16)).astype(np.int16)
    many = draw.integers(0, 900, (2, 12, 16, 5)).astype(">u2")
    result = one_band.upscale(one, seed=3)
    expected = one_band.upscale(Raster(values=one[None]), seed=3)
    assert np.array_equal(result, expected.values[0])
    assert result.dtype == np.int16
    results = five_bands.upscale([many, many[1]], seed=3)
    rasters = [Raster(values=np.moveaxis(each, -1, 0).astype(np.uint16)) for each in many]
    expected = five_bands.upscale([*rasters, rasters[1]], seed=3)
    assert np.array_equal(
        results[0], np.stack([np.moveaxis(e.values, 0, -1) for e in expected[:2]])
    )
    assert np.array_equal(results[1], np.moveaxis(expected[2].values, 0, -1))
    mean, std = one_band.upscale(one, seeds=2, return_std=True)
    assert mean.shape == std.shape == (24, 32)
    wanted = one_band.upscale(Raster(values=one[None]), seeds=2, return_std=True)[1]
    assert np.array_equal(std, wanted.values[0])


def test_a_run_starts_from_the_numbers_of_an_array(fill_zeros):
    five_bands = pipeline_of(5, ((0, 1000), (0, 10_000), (0, 10_000), (0, 10_000), (0, 5000)))
    fill_zeros(five_bands.stages.last)
    numbers = np.random.default_rng(6).integers(0, 900, (16, 16, 5)).astype(np.uint16)
    unit = Raster(values=np.moveaxis(numbers, -1, 0)).unit_image(five_bands.stages.last.space)
    options = {"seed": 1, "output_type": "pt"}
    result = five_bands(image=numbers, **options).images
    assert result.equal(five_bands(image=unit[None], **options).images)
    assert not result.equal(five_bands(image=numbers // 2, **options).images)
    with pytest.raises(ContractError, match="has 3 bands, but the model takes 5"):
        five_bands(image=numbers[..., :3], **options)


def test_pictures_are_no_bands_unless_their_numbers_are_the_same(one_band):
    grey = Image.fromarray(np.full((12, 16), 900, np.uint16))
    with pytest.raises(ContractError, match=r"upscales bands .* give a Raster, see cascade\.read_"):
        one_band.upscale(grey)
    assert pipeline_of(1, (0, 65_535)).upscale(grey).mode == "I;16"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([], "at least one; got none"),
        (
            np.zeros((0, 16, 16, 5), np.uint16),
            r"must be \(H, W\), .* got \(0, 16, 16, 5\) of uint16",
        ),
        (np.zeros((16, 16, 5), np.int64), r"of uint8, uint16 or int16, got \(16, 16, 5\) of int64"),
        ([np.zeros((16, s, 5), np.uint16) for s in (16, 24)], "same size, got 16x16 and 24x16 px"),
        ([np.zeros((16, 16, 5), np.float32)], "stack them along a new first axis"),
        ([torch.zeros(5, 16, 16)], "stack them along a new first axis"),
    ],
)
def test_what_is_no_image_of_bands_is_refused_in_a_line(five_bands, image, words):
    with pytest.raises(ContractError, match=words):
        five_bands(image=image, output_type="pt")


def test_a_run_starts_from_rasters_and_says_what_it_clips(five_bands, caplog):
    numbers = np.full((5, 16, 16), 1200, np.uint16)
    options = {"seed": 1, "output_type": "pt"}
    result = five_bands(image=Raster(values=numbers), **options).images
    assert "100 % of band 1 outside" in caplog.text
    assert result.equal(five_bands(image=[np.moveaxis(numbers, 0, -1)], **options).images)


def test_numbers_are_in_the_range_of_the_image_that_a_stage_takes(fill_zeros):
    """That of its results is another one."""
    contract = Contract(
        Space(size_px=16, channels=1, range=(0, 100)), (PairedImage(channels=1, range=(0, 10_000)),)
    )
    stage = DiffusionStage.build(
        contract, NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=1), embedding_dim=32,
    ).eval()  # fmt: skip
    pipeline = CascadePipeline.from_stages({"other": fill_zeros(stage)})
    pipeline.set_progress_bar_config(disable=True)
    options = {"seed": 1, "output_type": "pt"}
    numbers = np.full((16, 16), 5000, np.uint16)
    expected = pipeline(image=torch.zeros(1, 1, 16, 16), **options).images
    assert pipeline(image=numbers, **options).images.equal(expected)
    assert not pipeline(image=numbers // 2, **options).images.equal(expected)
