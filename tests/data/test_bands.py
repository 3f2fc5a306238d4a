"""Training images of bands of measured numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data import measured_range
from cascade.data.band_decoding import BandDecoding
from cascade.data.band_encoding import BandEncoding
from cascade.data.building import build_shards
from cascade.data.checking import check_images
from cascade.data.measured_range import _spread, measured_ranges
from cascade.data.preparation import CLIPPED, Decoding
from cascade.data.sources import open_source
from cascade.data.splitting import Shares
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.space import Space

SPACE = Space(size_px=8, channels=4, range=(0, 10_000))


def write_bands(path, values: np.ndarray) -> None:
    """Write (C, H, W) as a TIFF of one page."""
    options = {"planarconfig": "separate"} if len(values) > 1 else {}
    values = values if len(values) > 1 else values[0]
    tifffile.imwrite(path, values, photometric="minisblack", metadata=None, **options)


@pytest.fixture
def tiles(tmp_path):
    """A folder of four tiles of four bands, whose numbers end at 1000, 2000, 3000 and 4000."""
    draw = np.random.default_rng(1)
    tops = np.array([1000, 2000, 3000, 4000])[:, None, None]
    for number in range(4):
        values = (draw.random((4, 8, 8)) * tops).astype(np.uint16)
        values[:, 0, 0], values[:, 0, 1] = 0, tops[:, 0, 0]
        write_bands(tmp_path / f"tile{number}.tif", values)
    return tmp_path


def test_the_numbers_of_a_file_reach_the_network_unrounded(tiles):
    source = open_source(str(tiles), layout=Layout(4))
    images = TrainingImages(source, Contract(SPACE), flip=())
    stored = tifffile.imread(tiles / "tile2.tif").astype(np.float32)
    assert np.allclose(SPACE.from_unit(images.sized(2).image).numpy(), stored, atol=1e-2)
    assert images[0].image.dtype == torch.float32


def test_the_low_resolution_image_is_rounded_to_whole_numbers_of_the_range(tiles):
    contract = Contract(SPACE, (LowResolution(size_px=4),))
    images = TrainingImages(open_source(str(tiles), layout=Layout(4)), contract)
    small = SPACE.from_unit(images[0].conditions["low_resolution"])
    assert torch.allclose(small, small.round(), atol=1e-2)
    assert small.max() > 255


def test_the_numbers_that_are_measured_are_not_those_of_one_column():
    image = np.zeros((256, 256), np.uint16)
    image[:, 1:] = 9  # the first column is the air beside a patient
    assert (_spread(image.reshape(-1), 256, 0) == 9).mean() > 0.9


def test_percentiles_are_measured_over_all_images_and_rounded_outwards(tiles):
    source = open_source(str(tiles), layout=Layout(4))
    decoding = BandDecoding(4)
    assert measured_ranges(source, decoding, (0, 100)) == (
        (0, 1000),
        (0, 2000),
        (0, 3000),
        (0, 4000),
    )
    every = np.concatenate([tifffile.imread(path).reshape(4, -1) for path in tiles.iterdir()], 1)
    low, high = np.percentile(every[3], [5, 95])
    assert measured_ranges(source, decoding, (5, 95))[3] == (np.floor(low), np.ceil(high))


def test_many_images_take_no_more_memory_than_few(tmp_path, monkeypatch):
    stack = np.random.default_rng(0).integers(0, 999, (40, 2, 16, 16), dtype=np.uint16)
    np.save(tmp_path / "stack.npy", stack)
    sizes = []
    monkeypatch.setattr(measured_range, "SAMPLED_NUMBERS", 80)
    monkeypatch.setattr(measured_range, "JOINED_IMAGES", 7)
    ends = measured_range._ends
    monkeypatch.setattr(
        measured_range,
        "_ends",
        lambda values, *rest: sizes.append(values.size) or ends(values, *rest),
    )
    ranges = measured_ranges(open_source(str(tmp_path), layout=Layout(2)), BandDecoding(2), (1, 99))
    assert sizes == [80, 80]
    assert all(0 <= low < 150 and 850 < high < 999 for low, high in ranges)


def test_a_band_of_one_number_has_no_range(tiles):
    for path in tiles.iterdir():
        values = tifffile.imread(path)
        values[2] = 7
        write_bands(path, values)
    source = open_source(str(tiles), layout=Layout(4))
    with pytest.raises(DataError, match="band 3 has the value 7 at both percentiles"):
        measured_ranges(source, BandDecoding(4), (1, 99))


def test_numbers_outside_of_the_range_are_clipped_and_named_or_refused(tiles):
    space = Space(size_px=8, channels=4, range=((0, 1000), (0, 2000), (0, 3000), (0, 3500)))
    source = open_source(str(tiles), layout=Layout(4))
    sized = TrainingImages(source, Contract(space)).sized(0)
    assert sized.image.max() == 1
    (remark,) = sized.remarks
    assert remark.kind == CLIPPED
    assert "tile0.tif" in remark.text
    assert "band 4 lie outside 0 to 3500: they range from 0 to 4000" in remark.text
    strict = TrainingImages(source, Contract(space), outside="error", max_broken_share=0)
    with pytest.raises(DataError, match=r"tile\d.tif: .* band 4 lie outside .* outside=clip"):
        strict[0]


def test_colour_pictures_outside_of_the_range_may_be_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8, 3), 900, np.uint16), photometric="rgb")
    data = (tmp_path / "a.tif").read_bytes()
    with pytest.raises(DataError, match=r"a: 100 % of its values lie outside 0 to 800"):
        Decoding((0, 800), outside="error").load(data, "a", 0)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda values: values[:3], r"has 3 bands, but the stage takes 4 bands"),
        (lambda values: values[:1], r"has 1 band, but the stage takes 4 bands"),
        (lambda values: np.where(values > 3900, np.nan, values).astype(np.float32), "NaN or nod"),
        (lambda values: np.where(values > 3900, -9999, values).astype(np.int16), "NaN or nodata"),
    ],
)
def test_files_that_do_not_fit_are_named_in_one_line(tiles, damage, words):
    write_bands(tiles / "tile1.tif", damage(tifffile.imread(tiles / "tile1.tif")))
    source = open_source(str(tiles), layout=Layout(4))
    images = TrainingImages(source, Contract(SPACE), nodata=-9999, max_broken_share=0)
    with pytest.raises(DataError, match=words) as error:
        [images[position] for position in range(4)]
    assert "tile1.tif" in str(error.value)
    assert "\n" not in str(error.value)
    (broken,) = check_images(source, decoding=BandDecoding(4, nodata=-9999)).broken
    assert "tile1.tif" in broken


def test_the_images_of_a_stack_are_images_of_the_source(tmp_path):
    stack = np.arange(3 * 8 * 8, dtype=np.uint16).reshape(3, 8, 8)
    np.save(tmp_path / "scan.npy", stack)
    tifffile.imwrite(tmp_path / "one.tif", stack[0], photometric="minisblack")
    source = open_source(str(tmp_path), layout=Layout(1))
    assert [source.key(i) for i in range(4)] == ["one", "scan#0001", "scan#0002", "scan#0003"]
    assert source.name(3).endswith("scan.npy#3")
    space = Space(size_px=8, channels=1, range=(0, 191))
    images = TrainingImages(source, Contract(space))
    assert space.from_unit(images.sized(3).image)[0].numpy() == pytest.approx(stack[2], abs=1e-3)
    assert len(open_source(str(tmp_path))) == 1  # colour pictures are no numpy files


def test_a_check_counts_the_numbers_of_each_band(tiles):
    report = check_images(open_source(str(tiles), layout=Layout(4)), decoding=BandDecoding(4))
    facts = report.facts()
    assert facts["modes"] == "4 bands of uint16"
    assert facts["values"].startswith("band 1 0 to 1000; band 2 0 to 2000")


def test_volumes_become_images_with_the_labels_of_their_file(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = np.arange(8 * 8 * 3, dtype=np.int16).reshape(8, 8, 3)
    (tmp_path / "brain").mkdir()
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(tmp_path / "brain" / "scan.nii.gz")
    (tmp_path / "brain" / "scan.txt").write_text("a brain")
    source = open_source(str(tmp_path), layout=Layout(1))
    assert [source.key(i) for i in range(3)] == [f"brain/scan#000{n}" for n in (1, 2, 3)]
    assert source.labels(1) == {"class": "brain", "caption": "a brain"}
    assert len(open_source(str(tmp_path), layout=Layout(1, axis=0))) == 8


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_shards_hold_every_type_without_loss(tmp_path, dtype):
    draw = np.random.default_rng(2)
    (tmp_path / "in").mkdir()
    stack = (draw.random((3, 5, 9, 7)) * 200 - 50 * (dtype == "int16")).astype(dtype)
    if dtype == "float32":
        stack[1, 2, 3, 4] = np.nan
    np.save(tmp_path / "in" / "scan.v2.npy", stack)
    decoding = BandDecoding(5, missing="keep")
    source = open_source(str(tmp_path / "in"), layout=decoding.layout)
    manifest = build_shards(
        source, tmp_path / "out", origin="in", encoding=BandEncoding(), decoding=decoding,
        percentiles=(0, 100),
    )  # fmt: skip
    assert manifest["counts"]["train"] == 3
    assert manifest["bands"] == 5
    lowest, highest = np.nanmin(stack, axis=(0, 2, 3)), np.nanmax(stack, axis=(0, 2, 3))
    assert np.allclose(manifest["range"], np.stack([lowest, highest], 1))
    shards = open_source(str(tmp_path / "out" / "train-*.tar"), layout=Layout(5))
    assert [shards.key(i) for i in range(3)] == [f"scan_v2#000{n}" for n in (1, 2, 3)]
    for index in range(3):
        values = decoding.raster(shards.read(index), "a").values
        assert values.dtype == dtype
        assert np.array_equal(values, stack[index], equal_nan=dtype == "float32")


def test_the_slices_of_a_volume_are_built_into_one_split(tmp_path):
    noise = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(12):
        volume = noise.integers(0, 99, (3, 4, 4, 1), dtype=np.uint16)
        np.save(tmp_path / "in" / f"{number}.npy", volume)
    decoding = BandDecoding(1)
    source = open_source(str(tmp_path / "in"), layout=decoding.layout)
    build_shards(
        source, tmp_path / "out", origin="in", encoding=BandEncoding(), decoding=decoding,
        shares=Shares(0.5, 0.5),
    )  # fmt: skip
    splits = []
    for name in ("train", "validation"):
        shards = open_source(str(tmp_path / "out" / f"{name}-*.tar"), layout=decoding.layout)
        splits.append([shards.key(index).split("#")[0] for index in range(len(shards))])
    assert sum(map(len, splits)) == 36
    assert set(splits[0]) & set(splits[1]) == set()


def test_bands_are_downscaled_for_shards_unless_numbers_are_missing():
    ramp = np.arange(24, dtype=np.uint16) * 1000 + 500  # means of pairs are known
    values = np.stack([np.tile(ramp + 10_000 * band, (16, 1)) for band in range(4)])
    encoded = BandEncoding(size_px=8)(Raster(values=values), b"")
    small = BandDecoding(4).raster(encoded.data, "a").values
    assert small.shape == (4, 8, 12)
    means = values.reshape(4, 8, 2, 12, 2).mean(axis=(2, 4))
    assert np.abs(small[..., 2:-2] - means[..., 2:-2]).max() <= 1
    with pytest.raises(DataError, match="has NaN or nodata, which cannot be downscaled"):
        BandEncoding(size_px=8)(Raster(values=values, nodata=1500), b"")


@pytest.mark.parametrize("keys", [(1, 1, 0, 1, 1025, 0, 1, 1), (1, 1, 0, 1, 1025, 0, 1, 2)])
@pytest.mark.parametrize("tag", ["scale", "matrix"])
def test_shards_keep_the_places_of_the_pixels_that_they_take(tmp_path, keys, tag):
    matrix = (4.0, 0, 0, 100, 0, -4, 0, 900, 0, 0, 1, 0, 0, 0, 0, 1)
    points = (0.0, 0, 0, 100, 900, 0)
    tags = [(33550, "d", 3, (4.0, 4, 0), True), (33922, "d", 6, points, True)]
    tags = [(34264, "d", 16, matrix, True)] if tag == "matrix" else tags
    tags.append((34735, "H", 8, keys, True))
    stored = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24)
    tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, extratags=tags)
    raster = BandDecoding(1).raster((tmp_path / "a.tif").read_bytes(), "a")
    (tmp_path / "b.tif").write_bytes(BandEncoding(size_px=8, square=True)(raster, b"").data)
    offset = 0.5 if keys[-1] == 2 else 0.0  # from the first corner to the place of the first pixel
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        page = file.pages[0]
        if tag == "scale":
            step, (i, j, _, x, y, _) = page.tags[33550].value, page.tags[33922].value
            corner = x - (offset + i) * step[0], y + (offset + j) * step[1]
            assert step == (8, 8, 0)
        else:
            matrix = np.array(page.tags[34264].value).reshape(4, 4)
            corner = tuple((matrix @ [-offset, -offset, 0, 1])[:2])
            assert (matrix[0, 0], matrix[1, 1]) == (8, -8)
    assert corner == pytest.approx((100 + (4 - offset) * 4, 900 + offset * 4))


def test_a_number_for_missing_ones_counts_beside_that_of_the_file(tmp_path):
    values = np.array([[1, 2], [3, -9999]], np.int16)
    tag = (42113, "s", 0, "-9999", True)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, extratags=[tag])
    raster = BandDecoding(1, nodata=2).raster((tmp_path / "a.tif").read_bytes(), "a")
    assert raster.missing is not None
    assert raster.missing[0].tolist() == [[False, True], [False, True]]
