"""The mean and the standard deviation over seeds are those of the results one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cascade import mapped_arrays
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.imaging.rasters.raster import Raster
from cascade.pipeline import CascadePipeline
from cascade.restoration import doubt
from cascade.restoration.doubt import Moments, over_seeds
from cascade.sampling.canvas import new_canvas
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


@pytest.fixture
def pipeline(upsampler):
    """The upsampler in one step, without progress bars."""
    stage = upsampler.with_sampling(upsampler.sampling.changed(steps=1))
    return CascadePipeline.from_stages({"up": stage})


@pytest.fixture(scope="module")
def bands():
    """A pipeline that doubles images of two bands of different ranges."""
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(
            Space(size_px=32, channels=2, range=((0, 1000), (0, 9000))),
            (LowResolution(size_px=16, quantised=False),),
        ),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8,), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=2),
        embedding_dim=16,
    ).eval()
    return CascadePipeline.from_stages({"up": stage})


def plain(results: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation with n - 1."""
    stacked = np.stack(results).astype(np.float64)
    return stacked.mean(0), stacked.std(0, ddof=1)


# ---- sums ---------------------------------------------------------------------------------------


def test_the_sums_are_those_of_all_images_at_once_also_far_from_zero(monkeypatch):
    monkeypatch.setattr(doubt, "ROWS", 5)
    draw = torch.Generator().manual_seed(0)
    images = 1e6 + torch.randn(9, 2, 13, 4, generator=draw, dtype=torch.float64)
    moments = Moments()
    for image in images:
        moments.add(image)
    assert torch.allclose(moments.mean, images.mean(0), rtol=1e-15)
    assert torch.allclose(moments.std().double(), images.std(0), rtol=1e-6)


def test_the_memory_of_the_sums_does_not_grow_with_the_number_of_images(monkeypatch):
    shapes = []

    def counted(shape, dtype=np.float32):
        shapes.append(tuple(shape))
        return new_canvas(shape, dtype)

    monkeypatch.setattr(doubt, "new_canvas", counted)
    moments = Moments()
    for _ in range(20):
        moments.add(torch.zeros(3, 8, 8))
    assert shapes == [(3, 8, 8)] * 2


def test_large_sums_are_files(monkeypatch):
    monkeypatch.setattr("cascade.mapped_arrays.MOST_IN_MEMORY_BYTES", 100)
    images = torch.rand(3, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    moments = Moments()
    for image in images:
        moments.add(image)
    assert torch.allclose(moments.std(), images.std(0), rtol=1e-5)


def test_large_results_are_files_that_are_worked_on_in_parts(monkeypatch):
    draws = np.random.default_rng(0).integers(1, 900, (3, 2, 40, 24)).astype(np.uint16)
    draws[:, 0, 5:9] = 7
    make, files = [Raster(values=each, nodata=7) for each in draws], []
    expected = over_seeds(lambda seed, _: make[seed], range(3))
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(mapped_arrays, "NUMBERS_AT_ONCE", 500)
    allocate = mapped_arrays.tempfile.TemporaryFile
    monkeypatch.setattr(
        mapped_arrays.tempfile, "TemporaryFile", lambda: files.append(1) or allocate()
    )
    monkeypatch.setattr(Raster, "missing", property(lambda _: pytest.fail("a mask of the whole")))
    results = over_seeds(lambda seed, _: make[seed], range(3))
    assert len(files) == 4  # two sums, the mean and the deviation
    for result, same in zip(results, expected, strict=True):
        assert np.array_equal(result.values, same.values, equal_nan=True)
    assert np.isnan(results[1].values[0, 5:9]).all()


# ---- pictures -----------------------------------------------------------------------------------


def test_a_tensor_in_tiles_has_the_mean_and_the_deviation_of_its_results(pipeline):
    image = torch.rand(2, 3, 20, 12, generator=torch.Generator().manual_seed(1)) - 0.5
    results = [
        torch.stack([pipeline.upscale(each, seed=seed, tile_px=24) for each in image])
        for seed in (5, 6, 7)
    ]
    mean, std = pipeline.upscale(image, seed=5, seeds=3, return_std=True, tile_px=24)
    expected_mean, expected_std = plain([each.numpy() for each in results])
    assert np.allclose(mean.numpy(), expected_mean, atol=1e-6)
    assert np.allclose(std.numpy(), expected_std, atol=1e-6)
    assert std.max() > 0.01
    alone = pipeline.upscale(image, seed=5, seeds=3, tile_px=24)
    assert torch.equal(alone, mean)


@pytest.mark.parametrize(("mode", "dtype"), [("RGB", np.uint8), ("L", np.uint8)])
def test_pil_images_get_pil_means_and_arrays_of_levels(pipeline, mode, dtype):
    pixels = np.random.default_rng(0).integers(40, 200, (9, 8, 3)).astype(dtype)
    image = Image.fromarray(pixels).convert(mode)
    image.info["dpi"] = (72, 72)
    results = [np.asarray(pipeline.upscale(image, seed=seed)) for seed in range(3)]
    (mean,), (std,) = pipeline.upscale([image], seeds=3, return_std=True)
    expected_mean, expected_std = plain(results)
    assert (mean.mode, std.dtype, mean.info["dpi"]) == (mode, np.float32, (72, 72))
    assert np.array_equal(np.asarray(mean), np.rint(expected_mean))
    assert np.allclose(std, expected_std, atol=1e-4)


def test_deep_pictures_keep_their_bits_and_arrays_get_arrays(pipeline):
    pixels = np.random.default_rng(0).integers(9_000, 50_000, (9, 8, 3)).astype(np.uint16)
    picture = Picture(colour=torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), bits=16)
    results = [pipeline.upscale(picture, seed=seed).colour.numpy() for seed in range(2)]
    mean, std = pipeline.upscale(picture, seeds=2, return_std=True)
    expected_mean, expected_std = plain(results)
    assert mean.bits == 16
    assert np.array_equal(mean.colour.numpy(), np.rint(expected_mean))
    assert np.allclose(std.numpy(), expected_std, atol=0.1)
    array_mean, array_std = pipeline.upscale(pixels, seeds=2, return_std=True)
    assert (array_mean.dtype, array_mean.shape) == (np.uint16, (18, 16, 3))
    assert (array_std.dtype, array_std.shape) == (np.float32, (18, 16, 3))
    assert np.allclose(array_std.transpose(2, 0, 1), expected_std, atol=1)
    unit = pixels / np.float32(65535)
    _, unit_std = pipeline.upscale(unit, seeds=2, return_std=True)
    assert np.allclose(unit_std * 65535, array_std, atol=1)


def test_colours_are_in_doubt_where_the_seeds_disagree(colouriser):
    grey = Image.fromarray(np.random.default_rng(0).integers(40, 200, (16, 16)).astype(np.uint8))
    pipeline = CascadePipeline.from_stages({"colour": colouriser})
    results = [np.asarray(pipeline.colourise(grey, seed=seed, steps=2)) for seed in (1, 2)]
    mean, std = pipeline.colourise(grey, seed=1, seeds=2, return_std=True, steps=2)
    expected_mean, expected_std = plain(results)
    assert np.array_equal(np.asarray(mean), np.rint(expected_mean))
    assert std.shape == (16, 16, 3)
    assert np.allclose(std, expected_std, atol=1e-4)


# ---- bands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_bands_keep_their_numbers_and_the_deviation_has_their_units(bands, dtype):
    values = (np.random.default_rng(0).random((2, 10, 8)) * 900).astype(dtype)
    values[1, 2:4, 3:6] = 7
    raster = Raster(values=values, nodata=7)
    results = [bands.upscale(raster, seed=seed).values for seed in range(3)]
    mean, std = bands.upscale(raster, seeds=3, return_std=True)
    expected_mean, expected_std = plain(results)
    missing = (values == 7).repeat(2, axis=1).repeat(2, axis=2)
    assert (mean.values.dtype, mean.nodata) == (dtype, 7)
    assert np.array_equal(mean.missing, missing)
    expected = np.rint(expected_mean) if dtype == "uint16" else expected_mean
    expected[expected == 7] = 8  # no mean looks like a missing number
    assert np.allclose(mean.values[~missing], expected[~missing], rtol=1e-6)
    assert std.values.dtype == np.float32
    assert np.array_equal(std.missing, missing)
    assert np.allclose(std.values[~missing], expected_std[~missing], rtol=1e-4, atol=1e-3)
    assert std.values[1][~missing[1]].max() > 10


def test_a_mean_does_not_look_like_a_missing_number():
    images = iter([np.full((1, 2, 2), 4, np.uint8), np.full((1, 2, 2), 6, np.uint8)])
    mean, std = over_seeds(lambda seed, part: Raster(values=next(images), nodata=5), [0, 1])
    assert (mean.values == 6).all()
    assert mean.missing is None
    assert np.allclose(std.values, 2**0.5)


# ---- wrong calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"return_std": True}, "over seeds needs at least 2 seeds, got 1; ask for more, such as 8"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seeds": [1, 2]}, "seeds must be a whole number of at least 1, got"),
        ({"seeds": 2, "return_std": 1}, "return_std must be True or False"),
    ],
)
def test_wrong_numbers_of_seeds_are_refused_in_one_line(pipeline, settings, words):
    with pytest.raises(ContractError, match=words) as error:
        pipeline.upscale(torch.zeros(3, 8, 8), **settings)
    assert "\n" not in str(error.value)


def test_progress_counts_all_seeds(pipeline):
    shares = []
    pipeline.upscale(
        torch.zeros(3, 8, 8), seeds=3, progress=lambda done, total: shares.append(done / total)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert sum(share <= 1 / 3 for share in shares) < len(shares) / 2
