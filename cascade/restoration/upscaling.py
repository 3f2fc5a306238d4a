"""A picture of any size made larger by any factor, by upsamplers that were trained on crops.

A picture passes through upsamplers one after another, in tiles, until it is at least as large as
it shall be. Before each pass but the first it is made as small as the rest of the passes allow, so
that they end at the wanted size; where their factors do not give it exactly, the last result is
resampled down. Then it is made to agree with what was given.

Shapes: C channels, h and w pixels of what is given, H and W of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cascade.conditioning.consistency import consistent_bands
from cascade.conditioning.luminance import luminance
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.resizing import ResizeKernel, resize
from cascade.restoration.further_inputs import check_read, inputs_for
from cascade.sampling.canvas import new_canvas
from cascade.sampling.memory import smaller_tiles_if_needed
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Progress
from cascade.stage import Run, Stage

LARGEST_SCALE = 64
BAND_PX = 512
PROGRESS_PARTS = 1000


@dataclass(frozen=True, kw_only=True)
class Upscaling:
    """How to enlarge a picture; the stages say how they sample.

    Attributes:
        scale: factor of both sides, above 1 and at most 64; default: that of all upsamplers.
        seed: of all noise; the same seed gives the same result.
        tile_px: side of a tile of the result; default: 512, or the stage's own size where it has
            attention, and less where memory is short.
        consistent: whether the result, made small again, shall be the picture that was given;
            default: yes, unless a stage was trained to mend damaged pictures.
        precision: `auto`, `fp32` or `bf16`.
        inputs: what conditions of your own read, by the name of the input; each for one picture.
    """

    scale: float | None = None
    seed: int = 0
    tile_px: int | None = None
    consistent: bool | None = None
    precision: Precision = "auto"
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scale is None:
            return
        if not isinstance(self.scale, int | float) or not 1 < self.scale <= LARGEST_SCALE:
            raise ContractError(
                f"scale must be above 1 and at most {LARGEST_SCALE}, got {self.scale!r}."
            )

    def is_consistent(self, stages: Sequence[Stage]) -> bool:
        """Whether the result of these stages is made to agree with what was given."""
        if self.consistent is not None:
            return self.consistent
        return not any(stage.contract.mends for stage in stages)


@dataclass(frozen=True)
class Pass:
    """One enlargement: by which stage, and what size (h, w) goes in."""

    stage: Stage
    size_px: tuple[int, int]


def upsamplers_of(stages: Sequence[Stage]) -> list[Stage]:
    """Those that enlarge.

    Raises:
        ContractError: if there is none.
    """
    upsamplers = [stage for stage in stages if stage.contract.scale > 1]
    if not upsamplers:
        raise ContractError("this pipeline has no upsampler; it cannot enlarge pictures.")
    return upsamplers


def plan_passes(
    stages: Sequence[Stage], size_px: tuple[int, int], scale: float | None
) -> tuple[list[Pass], tuple[int, int]]:
    """Which stages enlarge a picture, one after another, and to what size.

    Args:
        stages: of a pipeline; its upsamplers take turns, the last one again and again.
        size_px: height and width of the picture.
        scale: factor of both sides; None for the product of all upsamplers'.

    Returns:
        The passes, and height and width of the result, which may be a little smaller than what the
        last pass gives.
    """
    upsamplers = upsamplers_of(stages)
    wanted = scale or math.prod(stage.contract.scale for stage in upsamplers)
    used, reached = [], 1
    while reached < wanted:
        used.append(upsamplers[min(len(used), len(upsamplers) - 1)])
        reached *= used[-1].contract.scale
    final = (round(size_px[0] * wanted), round(size_px[1] * wanted))
    passes = []
    for stage in used:
        needed = (math.ceil(final[0] / reached), math.ceil(final[1] / reached))
        passes.append(Pass(stage, needed if passes else size_px))
        reached //= stage.contract.scale
    return passes, final


def upscale_picture(
    stages: Sequence[Stage],
    picture: Picture,
    upscaling: Upscaling,
    *,
    progress: Progress | None = None,
) -> Picture:
    """Enlarge a picture with everything that it carries.

    Grey stays grey, 16 bits stay 16 bits; an alpha channel is enlarged by bicubic interpolation.

    Args:
        stages: of a pipeline, with at least one upsampler of colour images.
        picture: of any size.
        upscaling: how to enlarge it.
        progress: called as it goes on with how much is done and how much there is.

    Raises:
        ContractError: if the settings do not fit the stages, or memory is short.
        OutputError: if a very large picture finds no room on disk.
    """
    is_grey = picture.colour.shape[0] == 1
    size, bands = upscaled_bands(stages, picture.image(), upscaling, progress=progress)
    colour = torch.empty(len(picture.colour), *size, dtype=picture.colour.dtype)
    for rows, band in bands:
        colour[:, rows] = quantised(luminance(band)[0] if is_grey else band[0], picture.bits)
    alpha = None
    if picture.alpha is not None:
        opacity = picture.alpha[None].float() / (2**picture.bits - 1) * 2 - 1
        alpha = quantised(resize(opacity, size, "bicubic")[0], picture.bits)
    return picture.with_pixels(colour, alpha)


def upscale_image(
    stages: Sequence[Stage],
    image: Tensor,
    upscaling: Upscaling,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Enlarge an image.

    Args:
        stages: as for `upscale_picture`.
        image: (C, h, w) in [-1, 1].
        upscaling: how to enlarge it.
        progress: as for `upscale_picture`.

    Returns:
        (C, H, W) float32 in [-1, 1] on the CPU.

    Raises:
        ContractError: as for `upscale_picture`.
        OutputError: as for `upscale_picture`.
    """
    size, bands = upscaled_bands(stages, image, upscaling, progress=progress)
    result = new_canvas((image.shape[0], *size))
    for rows, band in bands:
        result[:, rows] = (luminance(band) if image.shape[0] == 1 else band)[0]
    return result


@torch.no_grad()
def upscaled_bands(
    stages: Sequence[Stage],
    image: Tensor,
    upscaling: Upscaling,
    *,
    progress: Progress | None = None,
) -> tuple[tuple[int, int], Iterator[tuple[slice, Tensor]]]:
    """The size of the result, and the result a band of rows at a time: (1, C, rows, W)."""
    passes, size = plan_passes(stages, (image.shape[-2], image.shape[-1]), upscaling.scale)
    check_read(upscaling.inputs, [step.stage for step in passes])
    channels = passes[0].stage.space.channels
    if image.ndim != 3 or image.shape[0] not in (1, channels):
        raise ContractError(
            f"images to enlarge must be (1, h, w) or ({channels}, h, w), got {tuple(image.shape)}."
        )
    given = image[None].float().cpu().expand(-1, channels, -1, -1)  # grey is three equal channels
    kernel = passes[0].stage.space.resize_kernel
    current, consistent = given, upscaling.is_consistent([step.stage for step in passes])
    for number, step in enumerate(passes):
        if number:
            current = resample(current, step.size_px, kernel)
        told = None if progress is None else _part_of(progress, number, len(passes))
        drawn = _draw(step.stage, current[0], upscaling, told)[None]
        on_the_way = number + 1 < len(passes) or tuple(drawn.shape[-2:]) != size
        if consistent and on_the_way:
            for rows, band in consistent_bands(drawn, current, kernel, band_px=BAND_PX):
                drawn[..., rows, :] = band
        current = drawn
    current = resample(current, size, kernel)
    is_whole = all(side % small == 0 for side, small in zip(size, given.shape[-2:], strict=True))
    same = size[0] * given.shape[-1] == size[1] * given.shape[-2]
    if consistent and is_whole and same:
        return size, consistent_bands(current, given, kernel, band_px=BAND_PX)
    return size, _bands(current)


def _bands(image: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for first in range(0, image.shape[-2], BAND_PX):
        rows = slice(first, min(first + BAND_PX, image.shape[-2]))
        yield rows, image[..., rows, :]


def resample(image: Tensor, size_px: tuple[int, int], kernel: ResizeKernel) -> Tensor:
    """Resize (1, C, H, W) a channel at a time, which needs less memory on the way."""
    if tuple(image.shape[-2:]) == tuple(size_px):
        return image
    result = new_canvas((*image.shape[:2], *size_px))
    smooth: ResizeKernel = "bicubic" if kernel in ("area", "nearest") else kernel
    for channel in range(image.shape[1]):
        result[:, channel] = resize(image[:, channel, None], size_px, smooth)[:, 0]
    return result


def _draw(stage: Stage, image: Tensor, upscaling: Upscaling, progress: Progress | None) -> Tensor:
    """The result (C, H, W) of one stage, on the CPU."""
    inputs = inputs_for(stage, image[None], upscaling.inputs)

    def sample(tile_px: int) -> Tensor:
        run = Run(
            tiles=Tiles(tile_px),
            hooks=Hooks(progress=progress),
            stream="upscale",
            precision=upscaling.precision,
        )
        return stage.run([upscaling.seed], inputs, run=run)[0].cpu()

    side = stage.default_tile_px() if upscaling.tile_px is None else upscaling.tile_px
    return smaller_tiles_if_needed(sample, side, stage.device)


def _part_of(progress: Progress, number: int, count: int) -> Callable[[int, int], None]:
    """Progress of one pass as a part of all."""

    def told(done: int, total: int) -> None:
        parts = PROGRESS_PARTS * (number + done / total)
        progress(round(parts), PROGRESS_PARTS * count)

    return told
