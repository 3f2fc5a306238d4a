from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import luminance
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.resizing import resize
from cascade.restoration.passes import plan_passes
from cascade.restoration.upscaling import Upscaling, upscale_image, upscale_picture
from cascade.sampling.tiles import Tiles
from cascade.space import Space
from cascade.stage import Run


@pytest.fixture
def image() -> Tensor:
    """A smooth picture of 22 x 17 px, well inside the range."""
    noise = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(3))
    return resize(noise.tanh() * 0.5, (22, 17), "bicubic")[0]


def picture_of(image: Tensor, bits: Literal[8, 16] = 8, **values) -> Picture:
    return Picture(colour=quantised(image, bits), bits=bits, **values)


@pytest.fixture
def quick(upsampler) -> DiffusionStage:
    """The upsampler with 2 steps."""
    return upsampler.with_sampling(upsampler.sampling.changed(steps=2))


# ---- how a scale is reached ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "inputs", "final"),
    [
        (None, [(30, 21)], (60, 42)),
        (2, [(30, 21)], (60, 42)),
        (1.5, [(30, 21)], (45, 32)),
        (3, [(30, 21), (45, 32)], (90, 63)),
        (4, [(30, 21), (60, 42)], (120, 84)),
        (8, [(30, 21), (60, 42), (120, 84)], (240, 168)),
    ],
)
def test_passes_end_at_the_requested_size_or_just_above(upsampler, scale, inputs, final):
    passes, size = plan_passes([upsampler], (30, 21), scale)
    assert [step.size_px for step in passes] == inputs
    assert size == final
    if scale != 1.5:
        reached = [side * 2 for side in passes[-1].size_px]
        assert all(0 <= large - side < 2 for large, side in zip(reached, size, strict=True))


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    scale=st.floats(1.01, 64, allow_nan=False),
)
def test_no_pass_begins_with_more_than_the_one_before_gave(height, width, scale):
    doubling = DiffusionStage(
        torch.nn.Identity(),
        NoiseProcess(NoiseSchedule(train_steps=2)),
        Contract(Space(size_px=16), (LowResolution(size_px=8),)),
    )
    passes, size = plan_passes([doubling], (height, width), scale)
    reached = (height, width)
    for step in passes:
        assert all(a <= b for a, b in zip(step.size_px, reached, strict=True))
        reached = tuple(2 * side for side in step.size_px)
    assert all(a >= b for a, b in zip(reached, size, strict=True))
    assert len(passes) == max(1, math.ceil(math.log2(scale) - 1e-9))


@pytest.mark.parametrize("scale", [1, 0, -2, 65, math.nan, math.inf])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(ContractError, match="scale must be above 1 and at most 64, got"):
        Upscaling(scale=scale)


def test_a_pipeline_without_an_upsampler_says_so(base_stage):
    with pytest.raises(ContractError, match="no upsampler"):
        upscale_image([base_stage], torch.zeros(3, 8, 8), Upscaling())


def test_images_of_other_channels_and_tiles_without_extent_are_refused(upsampler, image):
    with pytest.raises(ContractError, match=r"must be \(1, h, w\) or \(3, h, w\), got \(4, 8, 8\)"):
        upscale_image([upsampler], torch.zeros(4, 8, 8), Upscaling())
    with pytest.raises(ContractError, match="tile_px must be at least 1, got -1"):
        upscale_image([upsampler], image, Upscaling(tile_px=-1))


# ---- what comes out -----------------------------------------------------------------------------


def test_without_correction_it_is_what_the_stage_draws(upsampler, image):
    image = image / 2 + torch.tensor([0.5, 0.0, -0.5])[:, None, None]  # coloured everywhere
    upscaling = Upscaling(seed=5, consistent=False, precision="fp32")
    run = Run(tiles=Tiles(512), stream="upscale")
    (drawn,) = upsampler.run([5], Inputs({"image": image[None]}), run=run)
    result = upscale_image([upsampler], image, upscaling)
    torch.testing.assert_close(result, drawn, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_downscaled_result_is_the_input(quick, image, scale):
    result, free = (
        upscale_image([quick], image, Upscaling(scale=scale, consistent=consistent))
        for consistent in (True, False)
    )
    assert result.shape == (3, 22 * scale, 17 * scale)
    # The stage's weights are random, and most of what it draws is pure black or white.
    assert downscaled_error(free, image) > 200
    assert downscaled_error(result, image) < 3
    assert ((result.mean((1, 2)) - image.mean((1, 2))) * 127.5).abs().max() < 0.5


def downscaled_error(result: Tensor, image: Tensor) -> float:
    """Mean squared error in squared 8-bit units."""
    downscaled = resize(result[None], (22, 17), "bicubic")[0]
    return float(((downscaled - image) * 127.5).pow(2).mean())


def test_a_stage_that_restores_degraded_pictures_need_not_agree_with_them(quick, image):
    upscaling = Upscaling(seed=3, precision="fp32")
    labels, low_resolution = quick.conditions
    blind = replace(low_resolution, degradation=Degradation())
    contract = Contract(quick.space, (labels, blind))
    quick = DiffusionStage(quick.network, quick.process, contract, sampling=quick.sampling)
    free = upscale_image([quick], image, upscaling)
    assert downscaled_error(free, image) > 200
    agreeing = upscale_image([quick], image, replace(upscaling, consistent=True))
    assert downscaled_error(agreeing, image) < 3


def test_fractions_are_resampled_and_keep_the_mean(quick, image):
    result = upscale_image([quick], image, Upscaling(scale=2.6))
    assert result.shape == (3, 57, 44)
    assert ((result.mean((1, 2)) - image.mean((1, 2))) * 127.5).abs().max() < 2


def test_the_seed_decides(quick, image):
    first, again, other = (
        upscale_image([quick], image, Upscaling(seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01


def test_16_bit_grey_keeps_its_bits_and_levels(quick, image):
    grey = luminance(image[None])[0]
    picture = picture_of(grey, 16, dpi=(300.0, 300.0), format="tiff")
    result = upscale_picture([quick], picture, Upscaling())
    assert result.colour.shape == (1, 44, 34)
    assert (result.bits, result.dpi, result.format) == (16, (300.0, 300.0), "tiff")
    assert downscaled_error(result.image(), grey) < 3
    assert len(result.colour.to(torch.int32).unique()) > 500


def test_transparency_is_upscaled_too(quick, image):
    alpha = torch.full((1, 22, 17), 255, dtype=torch.uint8)
    alpha[:, :, :8] = 0
    result = upscale_picture([quick], picture_of(image, alpha=alpha), Upscaling())
    assert result.alpha is not None
    assert result.alpha.shape == (1, 44, 34)
    assert result.alpha[:, :, :12].max() == 0
    assert result.alpha[:, :, 20:].min() == 255


def test_progress_ends_at_its_total(quick, image):
    reports = []
    upscale_image([quick], image, Upscaling(scale=4), progress=lambda *at: reports.append(at))
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1][0] == reports[-1][1]
    assert len(reports) == 4  # two passes of two steps
