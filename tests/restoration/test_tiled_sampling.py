from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from cascade.conditioning.conditions import Conditions
from cascade.restoration.spans import spans
from cascade.restoration.tiled_sampling import sample_tiled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cascade.conditioning.luminance import luminance
from cascade.errors import ContractError
from cascade.imaging.reading import read_image
from cascade.resizing import resize
from cascade.stage import Stage

BUNDLED = Path(__file__).parents[2] / "pipelines" / "emoji-256" / "stages" / "upsampler"


class PointwiseNetwork(nn.Module):
    """Sees one pixel at a time, so that tiles cannot change what it says."""

    size_multiple_px = 4

    def seen(self, conditions):
        return conditions

    def forward(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        assert conditions.image is not None
        assert conditions.level is not None
        level = conditions.level.view(-1, 1, 1, 1)
        return torch.tanh(0.4 * x_t + conditions.image) * (0.5 + level) + 0.001 * t.view(
            -1, 1, 1, 1
        )


@pytest.fixture
def pointwise(upsampler) -> Stage:
    upsampler.network = PointwiseNetwork()
    upsampler.network.weight = nn.Parameter(torch.zeros(1))
    return upsampler


@pytest.fixture
def image() -> Tensor:
    return torch.rand(3, 25, 38, generator=torch.Generator().manual_seed(3)) * 2 - 1


# ---- where tiles lie ----------------------------------------------------------------------------


@given(
    length=st.integers(1, 400), tile=st.integers(2, 60), overlap=st.integers(0, 59), grid=st.just(4)
)
def test_tiles_cover_everything_with_weights_that_sum_to_one(length, tile, overlap, grid):
    length, tile = grid * length, grid * tile
    overlap = min(overlap * grid, tile - grid)
    total, covered = torch.zeros(length), []
    placed = spans(length, tile, overlap, grid)
    for span in placed:
        assert 0 <= span.start < span.stop <= length
        assert span.start % grid == 0
        assert (span.weight > 0).all()
        total[span.pixels] += span.weight
        covered.append((span.start, span.stop))
    torch.testing.assert_close(total, torch.ones(length))
    assert {stop - start for start, stop in covered} == {min(length, tile)}
    for (_, stop), (start, _) in itertools.pairwise(covered):
        assert stop - start >= overlap - grid


def test_weights_rise_and_fall_smoothly_where_tiles_overlap_and_nowhere_else():
    first, second = spans(96, 64, 32, 4)
    assert first.weight[:32].tolist() == [1.0] * 32
    assert second.weight[32:].tolist() == [1.0] * 32
    fall = first.weight[32:]
    assert (fall.diff() < 0).all()
    assert fall.diff().abs().max() < 2 / 32


# ---- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [None, torch.tensor([[1, 0]])])
def test_an_image_of_one_tile_is_what_the_stage_samples(upsampler, low_res, labels):
    settings = upsampler.sampling.changed(guidance=2.0, eta=0.5, temperature=0.7)
    wanted = upsampler.sample([7], image=low_res[:1], labels=labels, settings=settings)
    made = sample_tiled(upsampler, 7, low_res[0], labels=labels, settings=settings)
    torch.testing.assert_close(made, wanted[0], rtol=0, atol=1e-5)


def test_a_grey_image_of_one_tile_is_coloured_as_the_stage_does(colouriser, low_res):
    wanted = colouriser.sample([7], image=low_res[:1])
    for image in (low_res[0], luminance(low_res[:1])[0]):
        made = sample_tiled(colouriser, 7, image)
        torch.testing.assert_close(made, wanted[0], rtol=0, atol=1e-5)
    assert sample_tiled(colouriser, 7, torch.zeros(1, 18, 37)).shape == (3, 18, 37)


def test_images_that_the_stage_does_not_take_are_refused(base_stage, upsampler, image):
    with pytest.raises(ContractError, match="base stage and takes no image"):
        sample_tiled(base_stage, 0, image)
    with pytest.raises(ContractError, match=r"must be \(B, 3, H, W\)"):
        sample_tiled(upsampler, 0, image[:1])


@pytest.mark.parametrize("values", [{}, {"eta": 1.0}, {"sampler": "ddpm"}, {"guidance": 1.5}])
@pytest.mark.parametrize(("tile_px", "overlap_px"), [(16, 4), (16, 12), (24, None), (40, 0)])
def test_tiles_do_not_change_what_a_pointwise_network_makes(
    pointwise, image, values, tile_px, overlap_px
):  # traps 30, 32
    settings = pointwise.sampling.changed(**values)
    options = {"settings": settings, "labels": torch.tensor([[0, 1]])}
    whole = sample_tiled(pointwise, 3, image, tile_px=200, **options)
    assert whole.shape == (3, 50, 76)
    tiled = sample_tiled(pointwise, 3, image, tile_px=tile_px, overlap_px=overlap_px, **options)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=2e-5)
    other = sample_tiled(pointwise, 4, image, tile_px=tile_px, overlap_px=overlap_px, **options)
    assert (other - tiled).abs().max() > 0.05


def test_progress_is_told_after_every_row_of_tiles(pointwise, image):
    told = []
    sample_tiled(
        pointwise, 0, image, tile_px=24, overlap_px=8, progress=lambda *at: told.append(at)
    )
    rows = len(spans(52, 24, 8, 4))
    assert told == [(number + 1, 4 * rows) for number in range(4 * rows)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": "euler"}, "tiles need sampler ddim or ddpm"),
        ({"threshold": "dynamic"}, "threshold static or none"),
        ({"augmentation_level": 2.0}, "augmentation level must be in"),
    ],
)
def test_settings_that_tiles_cannot_have_are_refused(upsampler, image, values, message):
    settings = upsampler.sampling.changed(**values)
    with pytest.raises(ContractError, match=message):
        sample_tiled(upsampler, 0, image, settings=settings)


def test_borders_of_tiles_do_not_show():
    """Steps across borders of tiles are those of one large tile (a trained stage)."""
    stage = Stage.from_pretrained(BUNDLED)
    picture = read_image(BUNDLED.parents[1] / "samples.png")[None, :, :514]
    small = resize(picture, (48, 96), "bicubic")[0]
    settings = stage.sampling.changed(steps=3)
    whole, tiled, cut = (
        sample_tiled(stage, 0, small, settings=settings, tile_px=tile_px, overlap_px=overlap_px)
        for tile_px, overlap_px in ((384, 0), (160, 64), (128, 0))
    )  # (3, 192, 384) each
    seams = {}
    for name, image, tile_px, overlap_px in (("tiled", tiled, 160, 64), ("cut", cut, 128, 0)):
        edges = {e for span in spans(384, tile_px, overlap_px, 16) for e in (span.start, span.stop)}
        places = torch.tensor(sorted(edges - {0, 384})) - 1
        at_borders, without = (each.diff(dim=-1).abs()[..., places] for each in (image, whole))
        seams[name] = float(at_borders.mean() / without.mean())
    assert seams["tiled"] < 1.1
    assert seams["cut"] > 1.2  # tiles that do not overlap do show
    assert (tiled - whole).pow(2).mean().sqrt() < 8 / 127.5
