from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from cascade.restoration.tiled_sampling import sample_tiled
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cascade.conditioning.degradation import Degradation
from cascade.conditioning.luminance import luminance
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.resizing import resize
from cascade.restoration.upscaling import (
    Upscaling,
    plan_passes,
    upscale_image,
    upscale_picture,
)
from cascade.stage import Stage


@pytest.fixture
def image() -> Tensor:
    """A smooth picture of 22 x 17 px, well inside the range."""
    noise = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(3))
    return resize(noise.tanh() * 0.5, (22, 17), "bicubic")[0]


def picture_of(image: Tensor, bits: Literal[8, 16] = 8, **values) -> Picture:
    return Picture(colour=quantised(image, bits), bits=bits, **values)


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
def test_passes_end_at_the_wanted_size_or_just_above(upsampler, scale, inputs, final):
    passes, size = plan_passes([upsampler], (30, 21), scale)
    assert [step.size_px for step in passes] == inputs
    assert size == final
    reached = [side * 2 for side in passes[-1].size_px]
    assert all(0 <= got - wanted < 2 for got, wanted in zip(reached, size, strict=True)) or (
        scale == 1.5
    )


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    scale=st.floats(1.01, 64, allow_nan=False),
)
def test_no_pass_begins_with_more_than_the_one_before_gave(height, width, scale):
    doubling = Stage.build(
        Contract(size_px=16, low_res_px=8),
        NoiseProcess(NoiseSchedule(train_steps=2)),
        network_options={"channels": (8,), "blocks": 1},
        embedding_dim=8,
    )
    passes, size = plan_passes([doubling], (height, width), scale)
    given_px = (height, width)
    for step in passes:
        assert all(a <= b for a, b in zip(step.size_px, given_px, strict=True))
        given_px = tuple(2 * side for side in step.size_px)
    assert all(a >= b for a, b in zip(given_px, size, strict=True))
    assert len(passes) == max(1, math.ceil(math.log2(scale) - 1e-9))


@pytest.mark.parametrize("scale", [1, 0, -2, 65, math.nan, math.inf, "2"])
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


def test_without_correction_it_is_what_tiles_sample(upsampler, image):
    wanted = Upscaling(seed=5, consistent=False, precision="fp32")
    drawn = sample_tiled(upsampler, 5, image, tile_px=512, stream="upscale")
    torch.testing.assert_close(upscale_image([upsampler], image, wanted), drawn, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_result_made_small_again_is_what_was_given(upsampler, image, scale):
    made, free = (
        upscale_image([upsampler], image, Upscaling(scale=scale, steps=2, consistent=consistent))
        for consistent in (True, False)
    )
    assert made.shape == (3, 22 * scale, 17 * scale)
    # the stage's weights are random, and most of what it draws is pure black or white
    assert error_made_small(free, image) > 200
    assert error_made_small(made, image) < 3
    assert ((made.mean((1, 2)) - image.mean((1, 2))) * 127.5).abs().max() < 0.5


def error_made_small(result: Tensor, image: Tensor) -> float:
    """In 8-bit units squared."""
    small = resize(result[None], (22, 17), "bicubic")[0]
    return float(((small - image) * 127.5).pow(2).mean())


def test_a_stage_that_mends_damage_need_not_agree_with_what_was_damaged(upsampler, image):
    wanted = Upscaling(steps=2, seed=3, precision="fp32")
    upsampler.degradation = Degradation()
    free = upscale_image([upsampler], image, wanted)
    assert error_made_small(free, image) > 200
    agreeing = upscale_image([upsampler], image, replace(wanted, consistent=True))
    assert error_made_small(agreeing, image) < 3


def test_fractions_are_resampled_and_keep_the_mean(upsampler, image):
    made = upscale_image([upsampler], image, Upscaling(scale=2.6, steps=2))
    assert made.shape == (3, 57, 44)
    assert ((made.mean((1, 2)) - image.mean((1, 2))) * 127.5).abs().max() < 2


def test_the_seed_decides(upsampler, image):
    first, again, other = (
        upscale_image([upsampler], image, Upscaling(seed=seed, steps=2)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01


def test_grey_of_16_bits_stays_that_with_all_its_levels(upsampler, image):
    grey = luminance(image[None])[0]
    picture = picture_of(grey, 16, dpi=(300.0, 300.0), format="tiff")
    made = upscale_picture([upsampler], picture, Upscaling(steps=2))
    assert made.colour.shape == (1, 44, 34)
    assert (made.bits, made.dpi, made.format) == (16, (300.0, 300.0), "tiff")
    assert error_made_small(made.image(), grey) < 3
    assert len(made.colour.to(torch.int32).unique()) > 500


def test_transparency_is_enlarged_too(upsampler, image):
    alpha = torch.full((1, 22, 17), 255, dtype=torch.uint8)
    alpha[:, :, :8] = 0
    made = upscale_picture([upsampler], picture_of(image, alpha=alpha), Upscaling(steps=1))
    assert made.alpha is not None
    assert made.alpha.shape == (1, 44, 34)
    assert made.alpha[:, :, :12].max() == 0
    assert made.alpha[:, :, 20:].min() == 255


def test_progress_ends_at_its_total(upsampler, image):
    told = []
    upscale_image(
        [upsampler], image, Upscaling(scale=4, steps=3), progress=lambda *at: told.append(at)
    )
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]
    assert len(told) == 6
