"""Colours a picture of any size with a stage that takes grey images.

A network recognises things, and so their colours, best at the size that it was trained on.
Therefore the grey picture is downscaled to that size and coloured there. A guided filter (He & Sun
2015, arXiv 1505.00996) brings the colours back to full size and keeps them inside the edges of the
grey picture. The luminance of the result is that of the source, apart from rounding. The size stays
too: upsamplers that follow the stage in a pipeline take no part, but can upscale the result.

Shapes: C channels, H and W pixels of the picture, h and w of the small one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.luminance import impose_luminance, luminance
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.resizing import resize, upscaled_rows
from cascade.restoration.further_inputs import check_read, check_restoring, inputs_for
from cascade.sampling.memory import smaller_tiles_if_needed
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Known, Progress
from cascade.stage import Run, Stage

BAND_PX = 512
LONGEST_WHOLE = 2.5  # largest ratio of sides of pictures that are coloured in one tile
FILTER_RADIUS_PX = 2
FILTER_EPS = 0.01**2 * 4  # in [-1, 1]: smaller steps than a hundredth of the range are no edges
HINT_CHROMA = 0.08  # in [-1, 1]: least difference between a stroke and grey
Bands = Iterator[tuple[slice, Tensor]]  # rows of a result, and the pixels in them
HINT_SHARE = 0.5  # least share of a small pixel that a stroke covers


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """How to colour a picture. Sampling settings belong to the stage.

    Attributes:
        seed: whole number that decides all noise; another seed may give other colours.
        hints: a picture of the same proportions with strokes in the colours to use there. Strokes
            are its opaque pixels, or without transparency the pixels that are not grey.
        precision: `auto`, `fp32` or `bf16`.
        inputs: inputs of further conditions by name, each for one picture.

    Raises:
        ContractError: if a value is of the wrong kind.
    """

    seed: int = 0
    hints: Picture | None = None
    precision: Precision = "auto"
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_restoring(self)
        if not isinstance(self.hints, Picture | None):
            raise ContractError(
                f"hints must be a PIL image or a Picture, got {type(self.hints).__name__}."
            )


def colouriser_of(stages: Sequence[Stage]) -> Stage:
    """Find the stage that colours.

    Raises:
        ContractError: if there is none.
    """
    for stage in stages:
        images = [] if stage.contract.needs_partner else stage.contract.image_spaces
        if stage.space.channels == 3 and any(image.channels == 1 for image in images):
            return stage
    raise ContractError(
        "this pipeline has no stage that takes greyscale images; it cannot colourise."
    )


def colourise_picture(
    stages: Sequence[Stage],
    picture: Picture,
    colouring: Colouring,
    *,
    progress: Progress | None = None,
) -> Picture:
    """Colour a picture; if it has colours, only its luminance is used.

    Size, transparency, number of bits and metadata stay. A picture with a colour profile is
    converted to sRGB first, and keeps its luminance there.

    Args:
        stages: the stages of a pipeline, one of which takes grey.
        picture: a picture of any size.
        colouring: how to colour it.
        progress: called as `progress(done, total)` while the stage runs.

    Raises:
        ContractError: if settings or hints do not fit, or memory is short.
    """
    return colourise_pictures(stages, [picture], [colouring.seed], colouring, progress=progress)[0]


def colourise_pictures(
    stages: Sequence[Stage],
    pictures: Sequence[Picture],
    seeds: Sequence[int],
    colouring: Colouring,
    *,
    progress: Progress | None = None,
) -> list[Picture]:
    """Colour pictures of one size together, which takes less time.

    Each result is that of `colourise_picture` with its seed, up to the rounding of the device.

    Args:
        stages: the stages of a pipeline, one of which takes grey.
        pictures: pictures of the same height and width.
        seeds: one whole number per picture, instead of that of `colouring`.
        colouring: how to colour them; several pictures take no further inputs.
        progress: as for `colourise_picture`, of all pictures together.

    Raises:
        ContractError: as `colourise_picture`.
    """
    pictures = [picture.in_srgb() for picture in pictures]
    images = [picture.image() for picture in pictures]
    all_bands = coloured_bands(stages, images, seeds, colouring, progress=progress)
    return [_with_bands(*each) for each in zip(pictures, all_bands, strict=True)]


def _with_bands(picture: Picture, bands: Bands) -> Picture:
    """A picture's result, which comes in bands of rows."""
    colour = torch.empty(3, *picture.size, dtype=picture.colour.dtype)
    for rows, band in bands:
        colour[:, rows] = quantised(band[0], picture.bits)
    return picture.with_pixels(colour, picture.alpha)


def colourise_image(
    stages: Sequence[Stage],
    image: Tensor,
    colouring: Colouring,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Colour an image.

    Args:
        stages: the stages of a pipeline, one of which takes grey.
        image: (1, H, W) or (3, H, W) in [-1, 1].
        colouring: how to colour it.
        progress: called as `progress(done, total)` while the stage runs.

    Returns:
        (3, H, W) float32 in [-1, 1] on the CPU, with the luminance of `image`.

    Raises:
        ContractError: if settings or hints do not fit, or memory is short.
    """
    (bands,) = coloured_bands(stages, [image], [colouring.seed], colouring, progress=progress)
    return torch.cat([band for _, band in bands], dim=-2)[0]


@torch.no_grad()
def coloured_bands(
    stages: Sequence[Stage],
    images: Sequence[Tensor],
    seeds: Sequence[int],
    colouring: Colouring,
    *,
    progress: Progress | None = None,
) -> list[Bands]:
    """Colour images of one size; for each, the bands of rows (1, 3, rows, W) from the top.

    Args:
        stages: the stages of a pipeline, one of which takes grey.
        images: (1, H, W) or (3, H, W) each, in [-1, 1].
        seeds: one whole number per image.
        colouring: how to colour them.
        progress: called as `progress(done, total)` while the stage runs.
    """
    stage = colouriser_of(stages)
    greys = [luminance(image[None].float().cpu()) for image in images]  # (1, 1, H, W)
    height, width = greys[0].shape[-2:]
    size_px = _working_size(stage, (height, width))
    small = torch.cat([resize(grey, size_px, "bicubic") for grey in greys])  # (B, 1, h, w)
    coloured = _colour_small(stage, small, seeds, colouring, progress)
    chroma = coloured - luminance(coloured)  # (B, 3, h, w)
    parts = zip(greys, small.split(1), chroma.split(1), strict=True)
    return [_full_bands(*each) for each in parts]


@torch.no_grad()
def _full_bands(grey: Tensor, small: Tensor, chroma: Tensor) -> Bands:
    """Bring the colours of one image to its full size, a band of rows at a time.

    Args:
        grey: (1, 1, H, W) in [-1, 1].
        small: (1, 1, h, w), grey at the size of the colouring.
        chroma: (1, 3, h, w) in [-2, 2].
    """
    slope, offset = guided_coefficients(small, chroma)
    for first in range(0, grey.shape[-2], BAND_PX):
        rows = slice(first, min(first + BAND_PX, grey.shape[-2]))
        at_full = [upscaled_rows(each, grey.shape[-2:], rows) for each in (slope, offset)]
        band = grey[..., rows, :]
        yield rows, impose_luminance(band + at_full[0] * band + at_full[1], band)


def _working_size(stage: Stage, size_px: tuple[int, int]) -> tuple[int, int]:
    """Height and width for colouring: the shorter side is the stage's size, or smaller."""
    height, width = size_px
    share = min(1.0, stage.space.longer_px / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _colour_small(
    stage: Stage,
    small: Tensor,
    seeds: Sequence[int],
    colouring: Colouring,
    progress: Progress | None,
) -> Tensor:
    """Colour the downscaled grey pictures (B, 1, h, w): (B, 3, h, w)."""
    check_read(colouring.inputs, [stage])
    inputs = inputs_for(stage, small, colouring.inputs)
    tile_px = math.ceil(LONGEST_WHOLE * stage.space.longer_px)
    pixels = None if colouring.hints is None else _known(colouring.hints, small[:1])

    def sample(tile_px: int) -> Tensor:
        run = Run(
            tiles=Tiles(tile_px, tile_px // 2),
            hooks=Hooks(known=pixels, progress=progress),
            stream="colourise",
            precision=colouring.precision,
        )
        return stage.run(seeds, inputs, run=run).cpu()

    with stage.placed():
        return smaller_tiles_if_needed(sample, tile_px, stage.device)


def guided_coefficients(guide: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Fit the linear models of the guided filter around each pixel.

    Args:
        guide: (1, 1, h, w) in [-1, 1].
        values: (1, C, h, w) in [-2, 2].

    Returns:
        Slope and offset (1, C, h, w), the mean a and mean b of He & Sun: values are about
        slope x guide + offset, with edges where the guide has them.
    """
    mean_guide, mean_values = _box(guide), _box(values)
    covariance = _box(guide * values) - mean_guide * mean_values
    variance = _box(guide * guide) - mean_guide**2
    slope = covariance / (variance + FILTER_EPS)
    return _box(slope), _box(mean_values - slope * mean_guide)


def _box(images: Tensor) -> Tensor:
    """Average over the square around each pixel, as far as it is inside the image."""
    side = 2 * FILTER_RADIUS_PX + 1
    return F.avg_pool2d(images, side, stride=1, padding=FILTER_RADIUS_PX, count_include_pad=False)


# ---- hints --------------------------------------------------------------------------------------


def check_hints(stage: Stage, hints: Picture, size_px: tuple[int, int]) -> None:
    """Check before the long work that hints fit a picture.

    Args:
        stage: the stage that colours.
        hints: a picture with strokes.
        size_px: height and width of the picture.

    Raises:
        ContractError: if the hints have other proportions, or no stroke.
    """
    _small_strokes(hints, _working_size(stage, size_px))


def _known(hints: Picture, small: Tensor) -> Known:
    """Convert hints to pixels with known colours, at the size of the colouring.

    Args:
        hints: a picture with strokes.
        small: (1, 1, h, w) in [-1, 1], the downscaled grey picture.

    Raises:
        ContractError: if the hints have other proportions, or no stroke.
    """
    height, width = small.shape[-2:]
    chroma, mask = _small_strokes(hints, (height, width))
    return Known(impose_luminance(small + chroma, small), mask)


def _small_strokes(hints: Picture, size_px: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Downscale strokes: colour differences from grey (1, 3, h, w), and where they are (h, w)."""
    height, width = size_px
    if abs(hints.size[0] * width - hints.size[1] * height) > max(hints.size) * 2:
        raise ContractError(
            f"the hints have {hints.size[1]}x{hints.size[0]} px, but the image has another size; "
            "paint them on a copy of it."
        )
    chroma, strokes = _strokes(hints)
    covered = F.interpolate(strokes, size=(height, width), mode="area")
    amount = F.interpolate(chroma * strokes, size=(height, width), mode="area")
    mask = covered[0, 0] >= HINT_SHARE
    if not mask.any():
        raise ContractError(
            "the hints hold no coloured stroke, or only strokes thinner than a pixel of the "
            f"{width}x{height} px at which the model colourises; paint broader ones."
        )
    return amount / covered.clamp(min=HINT_SHARE), mask


def _strokes(hints: Picture) -> tuple[Tensor, Tensor]:
    """Colour differences from grey (1, 3, H, W), and how much of each pixel is a stroke, 0 to 1."""
    colour = hints.image().expand(3, -1, -1)[None]
    chroma = colour - luminance(colour)
    if hints.alpha is not None:
        return chroma, hints.alpha[None].float() / (2**hints.bits - 1)
    return chroma, (chroma.abs().amax(dim=1, keepdim=True) > HINT_CHROMA).float()
