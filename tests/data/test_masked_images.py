"""Training images of bands with missing values, which are filled and masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.image_embedding import ImageEmbedding
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data.batches import PositionBatches, collate, load_batches
from cascade.data.encoded_images import EncodedImages
from cascade.data.joining import Pairing
from cascade.data.preparation import MASKED
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.reading import read_raster
from cascade.imaging.writing import from_uint8
from cascade.space import Space

NODATA = -9999
SPACE = Space(size_px=16, channels=2, range=(0, 600))
CONTRACT = Contract(SPACE, (LowResolution(size_px=8),))


def write_scene(path: Path, values: np.ndarray) -> None:
    """Write (C, H, W) int16 as GDAL does, with the number of missing values in its tag."""
    path.parent.mkdir(exist_ok=True)
    tag = (42113, "s", 0, str(NODATA), True)
    tifffile.imwrite(
        path, values, photometric="minisblack", planarconfig="separate", metadata=None,
        extratags=[tag],
    )  # fmt: skip


def numbered(size_px: int) -> np.ndarray:
    """An image of two bands, (2, size_px, size_px), of which no two values are equal."""
    order = np.random.default_rng(0).permutation(2 * size_px**2)
    return order.reshape(2, size_px, size_px).astype(np.int16)


def marked(values: np.ndarray) -> np.ndarray:
    """The same without a corner of the first band and a spot of the second."""
    values = values.copy()
    values[0, :6, :3] = NODATA
    values[1, 9, 11] = NODATA
    return values


def images_of(folder: Path, contract: Contract = CONTRACT, **options) -> TrainingImages:
    source = open_source(str(folder), layout=Layout(contract.space.channels))
    return TrainingImages(source, contract, **({"missing": "mask"} | options))


def views(image: torch.Tensor) -> list[torch.Tensor]:
    """The eight ways to lay a square."""
    return [side.rot90(turns, (-2, -1)) for side in (image, image.flip(-1)) for turns in range(4)]


# ---- image and mask -----------------------------------------------------------------------------


def test_missing_values_are_filled_as_for_upscaling_and_masked_band_by_band(tmp_path):
    values = marked(numbered(16))
    write_scene(tmp_path / "a.tif", values)
    sized = images_of(tmp_path).sized(0)
    raster = read_raster(tmp_path / "a.tif", layout=Layout(2))
    assert sized.image.equal(raster.unit_image(SPACE, clip=True))
    assert sized.known is not None
    assert np.array_equal(sized.known.numpy(), values != NODATA)
    assert sized.bytes == 2 * 16 * 16 * 5 + 2 * 8 * 8 * sized.smaller["low_resolution"].itemsize
    (remark,) = sized.remarks
    assert remark == (MASKED, f"{tmp_path / 'a.tif'}: 3.7 % of its values are NaN or nodata.")


@pytest.mark.parametrize("crop_px", [8, None])
def test_the_mask_is_cut_mirrored_and_rotated_with_its_image(tmp_path, crop_px):
    write_scene(tmp_path / "a.tif", marked(numbered(16)))
    images = images_of(tmp_path, crop_px=crop_px, flip=("x", "y"), rotate90=True)
    whole, side = images.sized(0), crop_px or 16
    assert whole.known is not None
    places = [(y, x) for y in range(17 - side) for x in range(17 - side)]
    found = set()
    for position in range(40):
        sample = images[position]
        assert sample.known is not None
        ((y, x, view),) = [
            (y, x, number)
            for y, x in places
            for number, each in enumerate(views(whole.image[:, y : y + side, x : x + side]))
            if each.equal(sample.image)
        ]
        mask = views(whole.known[:, y : y + side, x : x + side])[view]
        assert sample.known.equal(mask)
        found.add((y, x, view))
    assert len({view for _, _, view in found}) > 5
    assert crop_px is None or len(found) > 20


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
@pytest.mark.parametrize("size_px", [64, 40])
def test_what_is_known_after_downscaling_does_not_depend_on_what_is_missing(
    tmp_path, kernel, size_px
):
    space = Space(size_px=16, channels=2, range=(0, 9000), resize_kernel=kernel)
    values = numbered(size_px)
    holed = values.copy()
    holed[0, :9, :14] = NODATA
    holed[1, 30:33, 20] = NODATA
    write_scene(tmp_path / "whole" / "a.tif", values)
    write_scene(tmp_path / "holed" / "a.tif", holed)
    whole, sized = (
        images_of(tmp_path / name, Contract(space)).sized(0) for name in ("whole", "holed")
    )
    assert whole.known is None
    assert sized.known is not None
    assert sized.image[sized.known].equal(whole.image[sized.known])
    assert (sized.image != whole.image).any()
    assert 0.5 < float(sized.known.float().mean()) < 0.99


def test_images_without_missing_values_are_those_of_refusing(tmp_path):
    write_scene(tmp_path / "some" / "whole.tif", numbered(16))
    options = {"crop_px": 8, "flip": ("x", "y")}
    masking = images_of(tmp_path / "some", **options)
    refusing = images_of(tmp_path / "some", missing="refuse", **options)
    ours, theirs = (
        collate([images[place] for place in range(4)]) for images in (masking, refusing)
    )
    assert ours.known is None
    assert ours.images.equal(theirs.images)
    write_scene(tmp_path / "some" / "marked.tif", marked(numbered(16)))
    both = collate([images_of(tmp_path / "some")[place] for place in range(2)])
    assert both.known is not None
    assert sorted((~both.known).flatten(1).sum(dim=1).tolist()) == [0, 19]


def test_the_mask_of_a_batch_goes_with_its_images():
    known = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    batch = Batch(images=known.float(), seeds=(1, 2, 3, 4), known=known)
    assert batch.to("cpu").known is not None
    for part in (batch.to("cpu"), *batch.parts(2), batch.first(3)):
        assert part.known is not None
        assert part.known.equal(part.images > 0.5)
        assert part.known.shape == part.images.shape


# ---- where nothing is known ---------------------------------------------------------------------


def test_images_of_which_nothing_is_known_are_broken(tmp_path):
    write_scene(tmp_path / "good.tif", marked(numbered(16)))
    write_scene(tmp_path / "empty.tif", np.full((2, 16, 16), NODATA, np.int16))
    sparse = np.full((2, 32, 32), NODATA, np.int16)
    sparse[:, ::2, ::2] = 5
    write_scene(tmp_path / "sparse.tif", sparse)
    images = images_of(tmp_path, max_broken_share=1.0)
    samples = [images[position] for position in range(6)]
    assert all(each.known is not None and each.known.sum() == 2 * 16 * 16 - 19 for each in samples)
    reasons = {reason for each in samples for reason in each.broken}
    empty, sparse = sorted(reasons)
    assert "empty.tif: 100 % of its values are NaN or nodata, so that nothing can be" in empty
    assert "sparse.tif: at the stage's 16 px, every value depends on one" in sparse
    strict = images_of(tmp_path, max_broken_share=0)
    with pytest.raises(DataError, match=r"(empty|sparse)\.tif: "):
        [strict[position] for position in range(3)]


def test_a_crop_of_which_nothing_is_known_is_drawn_again(tmp_path):
    space = Space(size_px=32, channels=2, range=(0, 3000))
    values = np.full((2, 32, 32), NODATA, np.int16)
    values[:, 16:, 16:] = numbered(32)[:, 16:, 16:]
    write_scene(tmp_path / "a.tif", values)
    images, others = (
        images_of(tmp_path, Contract(space), crop_px=8, flip=(), cache_mib=size) for size in (9, 0)
    )
    places = set()
    for position in range(30):
        sample, again = images[position], others[position]
        assert sample.known is not None
        assert sample.known.any()
        assert again.known is not None
        assert again.known.equal(sample.known)
        assert again.image.equal(sample.image)
        places.add(tuple(sample.image.flatten()[:4].tolist()))
    assert len(places) > 20


def test_workers_change_neither_images_nor_masks(tmp_path):
    for number in range(4):
        write_scene(tmp_path / f"{number}.tif", np.roll(marked(numbered(16)), 3 * number, axis=2))
    images = images_of(tmp_path, crop_px=8, rotate90=True)
    plain, shared = (
        list(load_batches(images, PositionBatches(0, 12, 4), workers=workers)) for workers in (0, 2)
    )
    for ours, theirs in zip(plain, shared, strict=True):
        assert ours.known is not None
        assert theirs.known is not None
        assert ours.known.equal(theirs.known)
        assert ours.images.equal(theirs.images)


# ---- pairs --------------------------------------------------------------------------------------


def test_a_pair_is_masked_where_its_target_lacks_values_and_its_input_is_filled(tmp_path):
    low = np.random.default_rng(1).integers(0, 600, (2, 16, 16)).astype(np.int16)
    high = low.repeat(2, axis=1).repeat(2, axis=2)
    high[0, :6, :3] = NODATA
    low[1, 4:6, 7] = NODATA
    write_scene(tmp_path / "high" / "a.tif", high)
    write_scene(tmp_path / "low" / "a.tif", low)
    source = open_source(
        str(tmp_path / "high"), layout=Layout(2), pairing=Pairing(str(tmp_path / "low"), Layout(2))
    )
    contract = Contract(SPACE, (LowResolution(size_px=8, paired=True),))
    images = TrainingImages(source, contract, missing="mask", flip=(), crop_px=16)
    sized = images.sized(0)
    assert sized.known is not None
    assert np.array_equal(sized.known.numpy(), high != NODATA)
    filled = read_raster(tmp_path / "low" / "a.tif", layout=Layout(2)).unit_image(SPACE, clip=True)
    small = sized.smaller["low_resolution"]
    small = from_uint8(small) if small.dtype == torch.uint8 else small
    assert small.equal(filled)
    assert images[0].known is not None
    with pytest.raises(DataError, match=r"a\.tif: .* are NaN or nodata; crop or fill"):
        _ = TrainingImages(source, contract, flip=(), crop_px=16, max_broken_share=1.0)[0]


# ---- what is refused ----------------------------------------------------------------------------


def test_stages_that_cannot_leave_values_out_are_refused(tmp_path):
    write_scene(tmp_path / "a.tif", marked(numbered(16)))
    colours = Contract(Space(size_px=16))
    with pytest.raises(DataError, match="missing=mask is for bands, but the stage makes colour"):
        TrainingImages(open_source(str(tmp_path)), colours, missing="mask")
    with pytest.raises(DataError, match="range, truncated and missing are for image files"):
        TrainingImages([torch.zeros(2, 16, 16)], Contract(SPACE), missing="mask")
    latents = Space(size_px=4, kind="latents", channels=2)
    with pytest.raises(DataError, match="but the latents of an image depend on all of it"):
        EncodedImages(images_of(tmp_path), latents, lambda images: images, tmp_path / "cache")
    embedding = ImageEmbedding(encoder="any", sha256="0" * 64, width=4)
    with pytest.raises(DataError, match="but the embeddings of an image depend on all of it"):
        images_of(tmp_path, Contract(SPACE, (embedding,)))
