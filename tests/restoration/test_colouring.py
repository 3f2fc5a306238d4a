from __future__ import annotations

import struct
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.imaging.vips import libvips
from cascade.resizing import resize
from cascade.restoration.colouring import (
    Colouring,
    colourise_image,
    colourise_picture,
    guided_coefficients,
)


@pytest.fixture
def image() -> Tensor:
    """A picture in colour of 150 x 90 px with an edge."""
    noise = torch.randn(1, 3, 9, 6, generator=torch.Generator().manual_seed(3))
    smooth = resize(noise.tanh() * 0.5, (150, 90), "bicubic")[0]
    smooth[:, :, 45:] += 0.3
    return smooth


@pytest.fixture
def quick(colouriser) -> DiffusionStage:
    """The stage that colours, with 2 steps."""
    return colouriser.with_sampling(colouriser.sampling.changed(steps=2))


def picture_of(image: Tensor, bits: Literal[8, 16] = 8, **values) -> Picture:
    return Picture(colour=quantised(image, bits), bits=bits, **values)


def luma_levels(picture: Picture) -> Tensor:
    """In levels of the picture's own bits."""
    return luminance(picture.image()[None]) * (2**picture.bits - 1) / 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_luminance_is_kept_to_a_level_and_so_is_the_metadata(quick, image, bits, channels):
    source = image if channels == 3 else luminance(image[None])[0]
    picture = picture_of(source, bits, dpi=(72.0, 72.0), format="tiff")
    result = colourise_picture([quick], picture, Colouring())
    assert (result.size, result.bits, result.dpi, result.format) == (
        (150, 90),
        bits,
        (72.0, 72.0),
        "tiff",
    )
    assert len(result.colour) == 3
    assert (luma_levels(result) - luma_levels(picture)).abs().max() <= 1
    chroma = result.image() - luminance(result.image()[None])[0]
    assert chroma.abs().mean() > 0.05  # and it is in colour


def test_grey_with_a_profile_keeps_the_luminance_that_it_has_in_srgb(quick, image):
    grey = luminance(image[None])[0]
    picture = picture_of(grey, profile=linear_grey_profile(), dpi=(72.0, 72.0))
    result = colourise_picture([quick], picture, Colouring())
    assert (result.profile, result.dpi) == (None, (72.0, 72.0))
    linear = picture.colour / 255
    srgb = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert (luma_levels(result) + 127.5 - 255 * srgb).abs().max() <= 1.1


def linear_grey_profile() -> bytes:
    """ICC.1:2001, of a white point and a curve without entries: out = in."""
    white = struct.pack(">3i", *(round(value * 65536) for value in (0.9642, 1, 0.8249)))
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", 156, 20, b"kTRC", 176, 12)
    tags += b"XYZ \0\0\0\0" + white + b"curv" + bytes(8)
    head = struct.pack(">I4sI4s4s4s", 188, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return head + white + bytes(48) + tags


def wide_gamut_profile() -> bytes:
    """Display P3, which libvips brings along."""
    black = libvips().Image.black(1, 1, bands=3).copy(interpretation="srgb")
    return black.icc_transform("p3").get("icc-profile-data")


def test_a_wide_gamut_becomes_srgb_before_it_is_coloured(quick, image):
    picture = picture_of(image, profile=wide_gamut_profile())
    result = colourise_picture([quick], picture, Colouring())
    assert result.profile is None
    assert (luma_levels(result) - luma_levels(picture.in_srgb())).abs().max() <= 1
    assert (luma_levels(result) - luma_levels(picture)).abs().max() > 2


def test_of_a_colour_picture_only_the_luminance_is_used(quick, image):
    grey = luminance(image[None])[0]
    first, second = (
        colourise_image([quick], each, Colouring(precision="fp32")) for each in (image, grey)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    other = colourise_image([quick], grey, Colouring(seed=1, precision="fp32"))
    assert (other - first).abs().mean() > 0.01


@pytest.mark.parametrize("size", [(3, 5), (16, 16), (17, 300)])
def test_any_shape_is_coloured(quick, size):
    result = colourise_image([quick], torch.zeros(1, *size), Colouring())
    assert result.shape == (3, *size)


def test_a_pipeline_without_such_a_stage_says_so(upsampler):
    with pytest.raises(ContractError, match="no stage that takes greyscale"):
        colourise_image([upsampler], torch.zeros(1, 8, 8), Colouring())


# ---- the guided filter --------------------------------------------------------------------------


def test_values_that_are_linear_in_the_guide_give_its_slope_and_offset():
    guide = torch.rand(1, 1, 20, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    slope, offset = guided_coefficients(guide, torch.cat([0.5 * guide - 0.2, -guide], dim=1))
    torch.testing.assert_close(slope[:, 0], torch.full_like(slope[:, 0], 0.5), rtol=0, atol=0.01)
    torch.testing.assert_close(offset[:, 0], torch.full_like(offset[:, 0], -0.2), rtol=0, atol=0.01)
    torch.testing.assert_close(slope[:, 1], torch.full_like(slope[:, 1], -1.0), rtol=0, atol=0.01)


def test_the_guided_filter_equals_kornia_at_the_same_size():
    from kornia.filters import guided_blur

    generator = torch.Generator().manual_seed(0)
    guide, values = (torch.rand(1, n, 24, 24, generator=generator) for n in (1, 3))
    slope, offset = guided_coefficients(guide, values)
    expected = guided_blur(guide, values, 5, 0.01**2 * 4, border_type="reflect")
    inner = (..., slice(5, -5), slice(5, -5))
    torch.testing.assert_close((slope * guide + offset)[inner], expected[inner], rtol=0, atol=1e-4)


def test_colours_end_at_edges_of_the_grey_picture():
    small = torch.full((1, 1, 16, 16), -0.5)
    small[..., 8:] = 0.5
    red = torch.zeros(1, 1, 16, 16)
    red[..., 8:] = 0.4
    slope, offset = (
        F.interpolate(each, scale_factor=8, mode="bilinear")
        for each in guided_coefficients(small, red)
    )
    large = torch.full((1, 1, 128, 128), -0.5)
    large[..., 64:] = 0.5
    result = slope * large + offset
    assert result[..., :64].abs().max() < 0.05  # half of 0.4 without the filter
    assert (result[..., 64:] - 0.4).abs().max() < 0.05


# ---- hints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_alpha", [True, False])
def test_strokes_have_their_colour_in_the_result(quick, image, with_alpha):
    grey = luminance(image[None])[0]
    painted = grey.expand(3, -1, -1).clone()
    painted[:, 30:90, 20:60] += torch.tensor([0.2, -0.1, -0.05])[:, None, None]
    hints = picture_of(painted)
    if with_alpha:
        alpha = torch.zeros(1, 150, 90, dtype=torch.uint8)
        alpha[:, 30:90, 20:60] = 255
        hints = picture_of(painted.where(alpha > 0, torch.tensor(0.0)), alpha=alpha)
    result = colourise_image([quick], grey, Colouring(hints=hints))
    colour = torch.tensor([0.2, -0.1, -0.05])
    chroma = colour - (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    inside = (result - grey)[:, 42:78, 32:48].mean((1, 2))
    torch.testing.assert_close(inside, chroma, rtol=0, atol=0.1)
    without = colourise_image([quick], grey, Colouring())
    assert ((without - grey)[:, 42:78, 32:48].mean((1, 2)) - chroma).abs().max() > 0.15


def test_hints_of_another_shape_or_without_a_stroke_are_refused(quick, image):
    grey = luminance(image[None])[0]
    for hints, message in (
        (picture_of(image[:, :60]), "the hints have 90x60 px, but the image has another size"),
        (picture_of(grey.expand(3, -1, -1)), "the hints hold no coloured stroke"),
    ):
        with pytest.raises(ContractError, match=message):
            colourise_image([quick], grey, Colouring(hints=hints))
    with pytest.raises(ContractError, match="must be a PIL image or a Picture, got Tensor"):
        Colouring(hints=grey)  # pyright: ignore[reportArgumentType]
