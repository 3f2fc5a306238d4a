"""A picture of any size coloured by a stage that takes grey images.

What a thing is, and so its colour, is seen best in a small picture: the grey one is made as small
as the stage was trained on, coloured there, and its colours are brought back to full size by a
guided filter (He & Sun 2015, arXiv 1505.00996), which keeps them inside the edges of the grey
picture. Its luminance is that of the source, to the rounding of the file.

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

from cascade.conditioning.luminance import Luminance, impose_luminance, luminance
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.resizing import resize
from cascade.restoration.further_inputs import check_read, inputs_for
from cascade.sampling.memory import smaller_tiles_if_needed
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Known, Progress
from cascade.stage import Run, Stage

BAND_PX = 512
LONGEST_WHOLE = 2.5  # pictures of up to this ratio of sides are coloured in one tile
FILTER_RADIUS_PX = 2
FILTER_EPS = 0.01**2 * 4  # in [-1, 1]: edges of less than a hundredth of the range are no edges
HINT_CHROMA = 0.08  # of [-1, 1]: what a stroke must differ from grey to be one
HINT_SHARE = 0.5  # of a small pixel that a stroke must cover


@dataclass(frozen=True, kw_only=True)
class Colouring:
    """How to colour a picture; the stage says how it samples.

    Attributes:
        seed: of all noise; another seed may give other colours.
        hints: a picture of the same shape with strokes in the colours that are wanted there: what
            is opaque in it, or in a picture without transparency what is not grey.
        precision: `auto`, `fp32` or `bf16`.
        inputs: what conditions of your own read, by the name of the input; each for one picture.
    """

    seed: int = 0
    hints: Picture | None = None
    precision: Precision = "auto"
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.hints, Picture | None):
            raise ContractError(
                f"hints must be a PIL image or a Picture, got {type(self.hints).__name__}."
            )


def colouriser_of(stages: Sequence[Stage]) -> Stage:
    """The stage that colours.

    Raises:
        ContractError: if there is none.
    """
    for stage in stages:
        if stage.contract.condition(Luminance.name) is not None:
            return stage
    raise ContractError("this pipeline has no stage that takes grey; it cannot colour pictures.")


def colourise_picture(
    stages: Sequence[Stage],
    picture: Picture,
    colouring: Colouring,
    *,
    progress: Progress | None = None,
) -> Picture:
    """Colour a picture, grey or in colour; of the latter only the luminance is used.

    Size, transparency, number of bits and all metadata stay, but a picture with a profile becomes
    sRGB, since colours are made there: its luminance is the one that it has in sRGB.

    Args:
        stages: of a pipeline, one of which takes grey.
        picture: of any size.
        colouring: how to colour it.
        progress: called as it goes on with how much is done and how much there is.

    Raises:
        ContractError: if settings or hints do not fit, or memory is short.
    """
    picture = picture.in_srgb()
    image = picture.image()
    colour = torch.empty(3, *picture.size, dtype=picture.colour.dtype)
    for rows, band in coloured_bands(stages, image, colouring, progress=progress):
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
        stages: as for `colourise_picture`.
        image: (1, H, W) or (3, H, W) in [-1, 1].
        colouring: how to colour it.
        progress: as for `colourise_picture`.

    Returns:
        (3, H, W) float32 in [-1, 1] on the CPU, of the luminance of `image`.

    Raises:
        ContractError: as for `colourise_picture`.
    """
    bands = [band for _, band in coloured_bands(stages, image, colouring, progress=progress)]
    return torch.cat(bands, dim=-2)[0]


@torch.no_grad()
def coloured_bands(
    stages: Sequence[Stage],
    image: Tensor,
    colouring: Colouring,
    *,
    progress: Progress | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Colour a band of rows at a time: (1, 3, rows, W), from the top."""
    stage = colouriser_of(stages)
    grey = luminance(image[None].float().cpu())  # (1, 1, H, W)
    small = resize(grey, _working_size(stage, grey), "bicubic")  # (1, 1, h, w)
    coloured = _colour_small(stage, small, colouring, progress)
    chroma = coloured - luminance(coloured)  # (1, 3, h, w)
    slope, offset = guided_coefficients(small, chroma)
    for first in range(0, grey.shape[-2], BAND_PX):
        rows = slice(first, min(first + BAND_PX, grey.shape[-2]))
        at_full = [_rows_enlarged(each, grey.shape[-2:], rows) for each in (slope, offset)]
        band = grey[..., rows, :]
        yield rows, impose_luminance(band + at_full[0] * band + at_full[1], band)


def _working_size(stage: Stage, grey: Tensor) -> tuple[int, int]:
    """Height and width at which a picture is coloured: its shorter side as trained, or smaller."""
    height, width = grey.shape[-2:]
    share = min(1.0, stage.space.longer_px / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _colour_small(
    stage: Stage, small: Tensor, colouring: Colouring, progress: Progress | None
) -> Tensor:
    """(1, 3, h, w)."""
    check_read(colouring.inputs, [stage])
    inputs = inputs_for(stage, small, colouring.inputs)
    tile_px = math.ceil(LONGEST_WHOLE * stage.space.longer_px)
    known = None if colouring.hints is None else _known(colouring.hints, small)

    def sample(tile_px: int) -> Tensor:
        run = Run(
            tiles=Tiles(tile_px, tile_px // 2),
            hooks=Hooks(known=known, progress=progress),
            stream="colourise",
            precision=colouring.precision,
        )
        return stage.run([colouring.seed], inputs, run=run).cpu()

    return smaller_tiles_if_needed(sample, tile_px, stage.device)


def guided_coefficients(guide: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The guided filter's straight lines, by which values follow from the guide around each pixel.

    Args:
        guide: (1, 1, h, w).
        values: (1, C, h, w).

    Returns:
        Slope and offset (1, C, h, w), He & Sun's mean a and mean b: values are slope x guide +
        offset, with edges where the guide has them.
    """
    mean_guide, mean_values = _box(guide), _box(values)
    covariance = _box(guide * values) - mean_guide * mean_values
    variance = _box(guide * guide) - mean_guide**2
    slope = covariance / (variance + FILTER_EPS)
    return _box(slope), _box(mean_values - slope * mean_guide)


def _box(images: Tensor) -> Tensor:
    """The mean of the square around each pixel, as far as it is inside."""
    side = 2 * FILTER_RADIUS_PX + 1
    return F.avg_pool2d(images, side, stride=1, padding=FILTER_RADIUS_PX, count_include_pad=False)


def _rows_enlarged(image: Tensor, size_px: Sequence[int], rows: slice) -> Tensor:
    """Some rows of (1, C, h, w) enlarged bilinearly to size_px (H, W)."""
    height, width = size_px
    places = torch.arange(rows.start, rows.stop) + 0.5
    y = places / height * 2 - 1  # both grids span [-1, 1] from edge to edge
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


# ---- hints --------------------------------------------------------------------------------------


def _known(hints: Picture, small: Tensor) -> Known:
    """Where strokes say what the colour is, and which: at the size that is coloured.

    Raises:
        ContractError: if the hints have another shape, or no stroke.
    """
    height, width = small.shape[-2:]
    if abs(hints.size[0] * width - hints.size[1] * height) > max(hints.size) * 2:
        raise ContractError(
            f"hints of {hints.size[1]}x{hints.size[0]} px have another shape than the picture; "
            "paint them on a copy of it."
        )
    colour = hints.image().expand(3, -1, -1)[None]
    chroma = colour - luminance(colour)
    if hints.alpha is not None:
        strokes = hints.alpha[None].float() / (2**hints.bits - 1)
    else:
        strokes = (chroma.abs().amax(dim=1, keepdim=True) > HINT_CHROMA).float()
    covered = F.interpolate(strokes, size=(height, width), mode="area")
    amount = F.interpolate(chroma * strokes, size=(height, width), mode="area")
    mask = covered[0, 0] >= HINT_SHARE
    if not mask.any():
        raise ContractError(
            "the hints hold no coloured stroke, or only thinner ones than a pixel of the "
            f"{width}x{height} px at which colours are drawn; paint broader ones."
        )
    wanted = impose_luminance(small + amount / covered.clamp(min=HINT_SHARE), small)
    return Known(wanted, mask)
