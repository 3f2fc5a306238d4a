"""Tiles: where they lie, and that a stage draws the same in tiles as in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.luminance import luminance
from cascade.conditioning.signals import Signals
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.imaging.reading import read_image
from cascade.resizing import resize
from cascade.sampling.memory import TILE_PX
from cascade.sampling.samplers.table import sampler_names
from cascade.sampling.spans import spans
from cascade.sampling.tiles import BATCH_PIXELS, Tiles, Tiling
from cascade.sampling.walk import Hooks, Known, StartFrom
from cascade.stage import Run

BUNDLED = Path(__file__).parents[2] / "pipelines" / "photo-x4" / "stages" / "upsampler"


class PointwiseNetwork(nn.Module):
    """Looks at one pixel at a time, so that tiles cannot change its output."""

    size_multiple_px = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        image = signals.channels["low_resolution"].image
        level = signals.vectors["low_resolution"].view(-1, 1, 1, 1)
        output = torch.tanh(0.4 * x_t + image) * (0.5 + level) + 0.001 * t.view(-1, 1, 1, 1)
        return self.weight * output


@pytest.fixture
def pointwise(upsampler) -> DiffusionStage:
    """16 -> 32 px, 4 steps, with a network that looks at one pixel at a time."""
    return DiffusionStage(
        PointwiseNetwork(), upsampler.process, upsampler.contract, sampling=upsampler.sampling
    )


@pytest.fixture
def image() -> Tensor:
    """(1, 3, 25, 38), which the stage makes 50 x 76 px on a canvas of 52 x 76."""
    return torch.rand(1, 3, 25, 38, generator=torch.Generator().manual_seed(3)) * 2 - 1


def draw(stage, image, tiles=None, *, seeds=(3,), labels=None, hooks=None, **settings) -> Tensor:
    run = Run(settings=stage.sampling.changed(**settings), tiles=tiles, hooks=hooks or Hooks())
    return stage.run(list(seeds), Inputs({"image": image, "labels": labels}), run=run)


# ---- where they lie -----------------------------------------------------------------------------


def test_without_tiles_one_covers_the_canvas():
    tiling = Tiling((52, 76), 4, None, images=1)
    assert tiling.is_whole
    assert [each.pixels for each in (*tiling.rows, *tiling.columns)] == [slice(0, 52), slice(0, 76)]
    assert Tiling((52, 76), 4, Tiles(64), images=1).is_whole  # 64 px squared are 4096, 52 x 76 3952
    assert not Tiling((52, 76), 4, Tiles(60), images=1).is_whole


@pytest.mark.parametrize(("tile_px", "side_px"), [(24, 24), (21, 24), (1, 4)])
def test_tiles_are_rounded_up_to_the_grid(tile_px, side_px):
    tiling = Tiling((52, 76), 4, Tiles(tile_px, 0), images=1, is_fitted=False)
    for span in (*tiling.rows, *tiling.columns):
        assert span.stop - span.start == side_px
        assert span.start % 4 == 0


def network_pixels(tiling: Tiling) -> int:
    """The pixels that go through the network in one step."""
    height, width = (sum(s.stop - s.start for s in axis) for axis in (tiling.rows, tiling.columns))
    return height * width


def test_small_tiles_overlap_by_a_quarter_and_large_ones_by_48_px_unless_asked_otherwise():
    for tile_px, overlap_px, least_px in ((24, None, 6), (24, 12, 12), (512, None, 48)):
        longest = (2 * tile_px - least_px) // 4 * 4  # that two tiles cover
        for side, count in ((longest, 2), (longest + 4, 3)):
            tiles = Tiles(tile_px, overlap_px)
            assert len(Tiling((side, side), 4, tiles, 1, is_fitted=False).columns) == count


def test_tiles_that_fit_cover_less_than_squares():
    squares, fitted = (
        Tiling((640, 640), 8, Tiles(512), 1, is_fitted=is_fitted) for is_fitted in (False, True)
    )
    assert network_pixels(squares) == (2 * 512) ** 2
    assert network_pixels(fitted) == 640 * 2 * 344


@given(height=st.integers(16, 700), width=st.integers(16, 700), tile=st.integers(6, 64))
def test_fitted_tiles_have_no_more_pixels_than_the_largest_square(height, width, tile):
    tiling = Tiling((8 * height, 8 * width), 8, Tiles(8 * tile), 1)
    row, column = tiling.rows[0], tiling.columns[0]
    assert (row.stop - row.start) * (column.stop - column.start) <= (8 * tile) ** 2
    squares = Tiling((8 * height, 8 * width), 8, Tiles(8 * tile), 1, is_fitted=False)
    assert network_pixels(tiling) <= network_pixels(squares)


@pytest.mark.parametrize(("grid_px", "share"), [(8, 1.3), (16, 1.3), (32, 1.3), (64, 1.4)])
def test_the_network_sees_hardly_more_pixels_in_tiles_than_in_one_piece(grid_px, share):
    squares = [(side, side) for side in (*range(256, 2400, 64), *range(2432, 8193, 320))]
    others = [(256, 4096), (704, 1984), (1152, 2176), (3136, 1024), (3136, 4480)]
    for size in (*squares, *others):
        pixels = network_pixels(Tiling(size, grid_px, Tiles(TILE_PX), 1))
        assert pixels <= share * size[0] * size[1], size


def test_squares_of_one_size_cover_a_picture_at_most_four_times():
    shares = {
        side: network_pixels(Tiling((side, side), 8, Tiles(256), 1, is_fitted=False)) / side**2
        for side in (256, *range(264, 1600, 72))
    }
    assert max(shares.values()) == shares[264]  # just larger than a tile
    assert 3.7 < shares[264] < 4


def test_a_network_with_attention_gets_tiles_of_the_size_that_it_was_trained_on(upsampler, low_res):
    sides: list[tuple[int, int]] = []
    backbone = upsampler.network.backbone
    backbone.register_forward_pre_hook(
        lambda _, inputs: sides.append(tuple(inputs[0].shape[-2:]))  # in patches of 2 px
    )
    image = low_res[:1].repeat(1, 1, 1, 2)[..., :22]  # 44 px wide
    draw(upsampler, image, Tiles(32), steps=1)
    backbone.attention = nn.MultiheadAttention(4, 1)
    draw(upsampler, image, Tiles(32), steps=1)
    assert sides == [(10, 22), (10, 22), (16, 16)]  # the last ones were one batch


def test_a_batch_of_tiles_holds_no_more_pixels_than_fit_and_all_columns_once():
    side = int((BATCH_PIXELS / 3) ** 0.5) // 4 * 4
    for images, at_once in ((1, 3), (2, 1), (9, 1)):
        tiling = Tiling((side, 7 * side), 4, Tiles(side, 0), images=images, is_fitted=False)
        assert [span for batch in tiling.batches for span in batch] == tiling.columns
        assert max(len(batch) for batch in tiling.batches) == at_once


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ((0,), "tile_px must be at least 1, got 0"),
        ((-5,), "tile_px must be at least 1, got -5"),
        ((16, 16), "overlap_px must be from 0 to 15, got 16"),
        ((16, -1), "overlap_px must be from 0 to 15, got -1"),
        (("32",), "tile_px must be a whole number of at least 1, got '32'"),
        ((3.5,), r"tile_px must be a whole number of at least 1, got 3\.5"),
        ((True,), "tile_px must be a whole number of at least 1, got True"),
        ((32, "8"), "overlap_px must be a whole number, got '8'"),
    ],
)
def test_tiles_without_extent_or_progress_are_refused(tiles, message):
    with pytest.raises(ContractError, match=message):
        Tiling((52, 76), 4, Tiles(*tiles), images=1)


def test_tiles_take_whole_numbers_of_numpy():
    assert Tiles(np.int64(32), np.int32(8)) == Tiles(32, 8)


# ---- one tile -----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, torch.tensor([[1, 0]])])
def test_an_image_of_one_tile_is_what_the_stage_draws_without_tiles(upsampler, low_res, labels):
    options = {"labels": labels, "guidance": 2.0, "eta": 0.5, "temperature": 0.7}
    whole = draw(upsampler, low_res[:1], **options)
    assert draw(upsampler, low_res[:1], Tiles(512), **options).equal(whole)


def test_a_grey_image_of_one_tile_is_coloured_as_without_tiles(colouriser, low_res):
    whole = draw(colouriser, low_res[:1])
    for image in (low_res[:1], luminance(low_res[:1])):
        assert draw(colouriser, image, Tiles(512)).equal(whole)


def test_sizes_that_the_network_does_not_take_are_padded_and_cropped(colouriser):
    for tiles in (None, Tiles(512), Tiles(16)):
        assert draw(colouriser, torch.zeros(1, 1, 18, 37), tiles).shape == (1, 3, 18, 37)


def test_images_that_the_stage_does_not_take_are_refused(base_stage, upsampler, image):
    with pytest.raises(ContractError, match="no condition that reads 'image'"):
        draw(base_stage, image, Tiles(16))
    with pytest.raises(ContractError, match="base stage and takes no image"):
        base_stage.run([3], previous=image, run=Run(tiles=Tiles(16)))
    with pytest.raises(ContractError, match=r"must be \(B, 3, H, W\)"):
        draw(upsampler, image[:, :1], Tiles(16))
    with pytest.raises(ContractError, match="augmentation_level must be from 0 to 1"):
        draw(upsampler, image, Tiles(16), augmentation_level=2.0)


# ---- many tiles ---------------------------------------------------------------------------------


SIZES = [Tiles(16, 4), Tiles(16, 12), Tiles(24), Tiles(40, 0)]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"eta": 1.0},
        {"sampler": "ddpm"},
        {"guidance": 1.5},
        {"guidance": 1.5, "guidance_interval": (0.1, 2.0)},
        {"temperature": 0.6, "sampler": "ddpm"},
        {"threshold": "dynamic", "percentile": 0.8},
        {"sampler": "ddpm", "threshold": "dynamic", "percentile": 0.8},
    ],
    ids=str,
)
@pytest.mark.parametrize("tiles", SIZES, ids=str)
def test_tiles_do_not_change_what_a_pointwise_network_draws(pointwise, image, values, tiles):
    options = {"labels": torch.tensor([[0, 1]]), **values}
    whole = draw(pointwise, image, **options)
    assert whole.shape == (1, 3, 50, 76)
    tiled = draw(pointwise, image, tiles, **options)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)
    other = draw(pointwise, image, tiles, seeds=[4], **options)
    assert (other - tiled).abs().max() > 0.05


@pytest.mark.parametrize("name", sampler_names())
def test_tiles_work_with_every_sampler(pointwise, image, name):
    whole = draw(pointwise, image, sampler=name)
    difference = (draw(pointwise, image, Tiles(24), sampler=name) - whole).abs()
    assert difference.mean() < 1e-6
    assert difference.max() < 5e-3  # second-order samplers enlarge single roundings


def test_tiles_work_with_several_images(pointwise, image):
    images = torch.cat([image, image.flip(-1), -image])
    tiled = draw(pointwise, images, Tiles(24), seeds=[3, 4, 5])
    torch.testing.assert_close(tiled, draw(pointwise, images, seeds=[3, 4, 5]), rtol=0, atol=2e-5)
    alone = draw(pointwise, images[1:2], Tiles(24), seeds=[4])
    torch.testing.assert_close(tiled[1:2], alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "unipc"])
def test_known_pixels_work_in_tiles(pointwise, image, name):
    mask = torch.zeros(50, 76, dtype=torch.bool)
    mask[10:45, 20:60] = True
    known = Known(torch.full((1, 3, 50, 76), 0.3), mask)
    whole, tiled = (
        draw(pointwise, image, tiles, hooks=Hooks(known=known), sampler=name)
        for tiles in (None, Tiles(24))
    )
    assert tiled[..., mask].eq(torch.tensor(0.3)).all()
    torch.testing.assert_close(tiled, whole, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_starting_from_an_image_works_in_tiles(pointwise, image, name):
    start = StartFrom(torch.full((1, 3, 52, 76), 0.4), 0.5)
    whole, tiled = (
        draw(pointwise, image, tiles, hooks=Hooks(start_from=start), sampler=name)
        for tiles in (None, Tiles(24))
    )
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)
    assert (whole - draw(pointwise, image, sampler=name)).abs().max() > 0.05


def test_a_callback_may_change_the_images_in_tiles(pointwise, image):
    def darken(index, t, tensors):
        return {"x_t": tensors["x_t"] - 0.1 * tensors["x0"]} if index < 3 else None

    whole, tiled = (
        draw(pointwise, image, tiles, hooks=Hooks(callback=darken)) for tiles in (None, Tiles(24))
    )
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)
    assert (whole - draw(pointwise, image)).abs().max() > 0.01


def test_progress_is_reported_after_every_row_of_tiles(pointwise, image):
    reports = []
    hooks = Hooks(progress=lambda *at: reports.append(at))
    draw(pointwise, image, Tiles(24, 8), hooks=hooks)
    rows = len(Tiling((52, 76), 4, Tiles(24, 8), 1).rows)
    assert reports == [(number, 4 * rows) for number in range(1, 4 * rows + 1)]


def test_the_noise_is_that_of_the_seeds_for_the_whole_canvas(pointwise, image):
    """It is the first of the stream, whatever the tiles: conditions have streams of their own."""
    first = {}

    def keep(index, t, tensors):
        first.setdefault("x_t", tensors["x_t"].clone())

    start = StartFrom(torch.zeros(1, 3, 52, 76), 0.25)  # the last step, t = 24
    hooks = Hooks(start_from=start, callback=keep)
    network_inputs = []
    pointwise.network.module.register_forward_pre_hook(
        lambda _, inputs: network_inputs.append(inputs[0])
    )
    draw(pointwise, image, hooks=hooks)
    noise = SeededNoise([3], "sample")
    sigma = pointwise.process.schedule.alpha_sigma(torch.tensor([24]))[1]
    torch.testing.assert_close(network_inputs[0], sigma * noise.normal(3, 52, 76))


def test_borders_of_tiles_do_not_show():
    """Steps across borders of tiles are those of one large tile (a trained stage)."""
    stage = DiffusionStage.from_pretrained(BUNDLED)
    picture = read_image(BUNDLED.parents[1] / "enlarged.png")[None, :, :512, :1024]
    small = resize(picture, (48, 96), "bicubic")
    whole, tiled, cut = (
        draw(stage, small, tiles, steps=3)[0]
        for tiles in (Tiles(384, 0), Tiles(160, 64), Tiles(128, 0))
    )  # (3, 192, 384) each
    seams = {}
    for name, result, tile_px, overlap_px in (("tiled", tiled, 160, 64), ("cut", cut, 128, 0)):
        edges = {e for span in spans(384, tile_px, overlap_px, 16) for e in (span.start, span.stop)}
        places = torch.tensor(sorted(edges - {0, 384})) - 1
        at_borders, without = (each.diff(dim=-1).abs()[..., places] for each in (result, whole))
        seams[name] = float(at_borders.mean() / without.mean())
    assert seams["tiled"] < 1.1
    assert seams["cut"] > 1.2  # tiles that do not overlap do show
    assert (tiled - whole).pow(2).mean().sqrt() < 8 / 127.5
