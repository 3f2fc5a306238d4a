"""Upscales a picture of any size by any factor, with upsamplers that were trained on crops.

A picture passes through upsamplers one after another (`passes.py`), in tiles, until it is large
enough. If their factors do not give the requested size exactly, the last result is downscaled.
Then the result is changed to agree with the input. Neutral and flat areas of the input stay neutral
and flat (`kept_areas.py`).

Shapes: C channels, h and w pixels of the input, H and W of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cascade.arguments import flag, real_number, whole_number
from cascade.conditioning.consistency import consistent_bands
from cascade.conditioning.defects import CLEAN, Defects
from cascade.conditioning.defects import NAME as DEFECTS
from cascade.conditioning.luminance import luminance
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.mapped_arrays import release_pages
from cascade.resizing import ResizeKernel, resize
from cascade.restoration.further_inputs import check_read, check_restoring, inputs_for, joined
from cascade.restoration.kept_areas import KeptAreas, bands_of_rows
from cascade.restoration.measuring import defects_of
from cascade.restoration.passes import Pass, plan_passes, upsamplers_of
from cascade.restoration.source import (
    Source,
    check_takes_picture,
    picture_with_channels_of_result,
    resample,
    with_channels_of_result,
)
from cascade.sampling.canvas import new_canvas
from cascade.sampling.memory import smaller_tiles_if_needed
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Progress
from cascade.stage import Run, Stage

LARGEST_SCALE = 64
PROGRESS_PARTS = 1000
Bands = Iterator[tuple[slice, Tensor]]  # rows of a result, and the pixels in them


@dataclass(frozen=True, kw_only=True)
class Upscaling:
    """How to upscale a picture. Sampling settings belong to the stages.

    Attributes:
        scale: factor for both sides, above 1 and at most 64; default: the factor of all upsamplers
            together.
        seed: whole number that decides all noise; the same seed gives the same result.
        tile_px: a tile of the result has at most as many pixels as a square of this side; default:
            512, or the stage's own size if it has attention, and less if memory is short.
        consistent: whether the result, downscaled again, must equal the input; default: yes, unless
            a stage was trained to restore degraded pictures, or on pairs. A stage that is told how
            degraded its picture is agrees with it up to its noise. Where the factor is no whole
            number, only what the passes give agrees with their inputs.
        precision: `auto`, `fp32` or `bf16`.
        inputs: inputs of further conditions by name, each for one picture.

    Raises:
        ContractError: if a value is of the wrong kind or out of range.
    """

    scale: float | None = None
    seed: int = 0
    tile_px: int | None = None
    consistent: bool | None = None
    precision: Precision = "auto"
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_restoring(self)
        if self.tile_px is not None:
            whole_number("tile_px", self.tile_px, low=1)
        if self.consistent is not None:
            object.__setattr__(self, "consistent", flag("consistent", self.consistent))
        if self.scale is None:
            return
        object.__setattr__(self, "scale", real_number("scale", self.scale))
        if not 1 < self.scale <= LARGEST_SCALE:
            raise ContractError(
                f"scale must be above 1 and at most {LARGEST_SCALE}, got {self.scale!r}."
            )

    def is_consistent(self, stages: Sequence[Stage]) -> bool:
        """Whether the results of these stages are changed to agree with their inputs."""
        if self.consistent is not None:
            return self.consistent
        return all(stage.contract.has_dial or not stage.contract.restores for stage in stages)


def upscale_picture(
    stages: Sequence[Stage],
    picture: Picture,
    upscaling: Upscaling,
    *,
    progress: Progress | None = None,
) -> Picture:
    """Upscale a picture and keep its metadata.

    Grey pictures stay grey, unless the stages were trained on pairs, whose colours may differ.
    16-bit pictures keep 16 bits. An alpha channel is upscaled by
    bicubic interpolation.

    Args:
        stages: the stages of a pipeline, with at least one upsampler of colour images.
        picture: a picture of any size.
        upscaling: how to upscale it.
        progress: called as `progress(done, total)` while stages run.

    Raises:
        ContractError: if the settings do not fit the stages, or memory is short.
        OutputError: if a very large picture needs more temporary space than the disk has.
    """
    return upscale_pictures(stages, [picture], [upscaling.seed], upscaling, progress=progress)[0]


def upscale_pictures(
    stages: Sequence[Stage],
    pictures: Sequence[Picture],
    seeds: Sequence[int],
    upscaling: Upscaling,
    *,
    progress: Progress | None = None,
) -> list[Picture]:
    """Upscale pictures of one size together, which takes less time if they are small.

    Each result is that of `upscale_picture` with its seed, up to the rounding of the device.

    Args:
        stages: as for `upscale_picture`.
        pictures: pictures of the same height and width.
        seeds: one whole number per picture, instead of that of `upscaling`.
        upscaling: how to upscale them; several pictures take no further inputs.
        progress: as for `upscale_picture`, of all pictures together.

    Raises:
        ContractError: as `upscale_picture`.
    """
    space = upsamplers_of(list(stages))[0].space
    for picture in pictures:
        check_takes_picture(space, picture, "upscales")
    measures = [lambda each=each: each.defects for each in pictures]
    pictures = [picture_with_channels_of_result(picture, stages) for picture in pictures]
    images = [picture.image() for picture in pictures]
    size, all_bands = upscaled_bands(
        stages, images, seeds, upscaling, measures=measures, progress=progress
    )
    return [_with_bands(*each, size) for each in zip(pictures, all_bands, strict=True)]


def _with_bands(picture: Picture, bands: Bands, size: tuple[int, int]) -> Picture:
    """A picture's result of this height and width, which comes in bands of rows."""
    colour = torch.empty(len(picture.colour), *size, dtype=picture.colour.dtype)
    for rows, band in bands:
        colour[:, rows] = quantised(band[0], picture.bits)
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
    """Upscale an image.

    Args:
        stages: the stages of a pipeline, with at least one upsampler.
        image: (C, h, w) in [-1, 1].
        upscaling: how to upscale it.
        progress: called as `progress(done, total)` while stages run.

    Returns:
        (C, H, W) float32 in [-1, 1] on the CPU; three channels if the stages were trained on pairs
        of colour pictures.

    Raises:
        ContractError: if the settings do not fit the stages, or memory is short.
        OutputError: if a very large image needs more temporary space than the disk has.
    """
    image = with_channels_of_result(image, stages)
    size, (bands,) = upscaled_bands(stages, [image], [upscaling.seed], upscaling, progress=progress)
    result = new_canvas((image.shape[0], *size))
    for rows, band in bands:
        result[:, rows] = band[0]
    return result


@torch.no_grad()
def upscaled_bands(
    stages: Sequence[Stage],
    images: Sequence[Tensor],
    seeds: Sequence[int],
    upscaling: Upscaling,
    *,
    measures: Sequence[Callable[[], Defects]] | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[int, int], list[Bands]]:
    """Upscale images of one size, and return the size of the results and their bands of rows.

    Args:
        stages: the stages of a pipeline, with at least one upsampler.
        images: (C, h, w) each, in [-1, 1].
        seeds: one whole number per image.
        upscaling: how to upscale them.
        measures: measure the defects of each, where they matter; None to do so by its pixels.
        progress: called as `progress(done, total)` while stages run.

    Returns:
        Height and width of the results; and for each its bands (1, C, rows, W) with their rows,
        from the top.
    """
    passes, size = plan_passes(stages, (images[0].shape[-2], images[0].shape[-1]), upscaling.scale)
    check_read(upscaling.inputs, [step.stage for step in passes])
    first = passes[0].stage
    space = first.space
    measures = [partial(Defects.of, image) for image in images] if measures is None else measures
    sources = [
        Source.of(image, first, defects_of(image, first, upscaling.inputs, measure))
        for image, measure in zip(images, measures, strict=True)
    ]
    results = _run_passes(passes, sources, seeds, size, upscaling, progress)
    height, width = images[0].shape[-2:]
    is_whole = size[0] / height == size[1] / width == round(size[0] / height)
    is_consistent = is_whole and upscaling.is_consistent([step.stage for step in passes])
    all_bands = []
    for channels, source, result in zip(map(len, images), sources, results, strict=True):
        if tuple(result.shape[-2:]) != size:
            result = resample(result, size, space.resize_kernel)
            source.areas.restore(result)
        bands = _bands(result)
        if is_consistent:
            image = source.denoised_input(result, first)
            bands = _consistent_bands(result, image, source.areas, space.resize_kernel)
        all_bands.append(_with_channels(bands, channels))
    return size, all_bands


def _with_channels(bands: Bands, channels: int) -> Bands:
    return ((rows, band.expand(-1, channels, -1, -1)) for rows, band in bands)


def _run_passes(
    passes: Sequence[Pass],
    sources: Sequence[Source],
    seeds: Sequence[int],
    size: tuple[int, int],
    upscaling: Upscaling,
    progress: Progress | None,
) -> list[Tensor]:
    """Run the upsamplers one after another: (1, C, H, W) each, perhaps a little larger than `size`.

    Each result keeps the neutral and flat areas of the very first input. If results must be
    consistent, it is then changed to agree with the input of its pass. The result of final size is
    not: the caller compares it with the very first input.
    """
    images = [source.image for source in sources]
    kernel = passes[0].stage.space.resize_kernel
    consistent = upscaling.is_consistent([step.stage for step in passes])
    for number, step in enumerate(passes):
        if number:
            images = [resample(image, step.size_px, kernel) for image in images]
        part = None if progress is None else _part_of(progress, number, len(passes))
        defects = [CLEAN if number else source.defects for source in sources]
        results = _draw(step.stage, images, seeds, upscaling, defects, part)
        is_final = number + 1 == len(passes) and tuple(results[0].shape[-2:]) == size
        for source, image, result in zip(sources, images, results, strict=True):
            source.areas.restore(result)
            if consistent and not is_final:
                target = image if number else source.denoised_input(result, step.stage)
                for rows, band in _consistent_bands(result, target, source.areas, kernel):
                    result[..., rows, :] = band
        images = results
    return images


def _consistent_bands(
    result: Tensor, image: Tensor, areas: KeptAreas, kernel: ResizeKernel
) -> Iterator[tuple[slice, Tensor]]:
    """Make a result agree with an image outside the areas that it keeps."""
    size = (result.shape[-2], result.shape[-1])
    reduce_on = partial(areas.reduce_on, size_px=size)
    first = next(bands_of_rows(result.shape))
    return consistent_bands(result, image, kernel, band_px=first.stop, reduce_on=reduce_on)


def _bands(image: Tensor) -> Iterator[tuple[slice, Tensor]]:
    for rows in bands_of_rows(image.shape):
        yield rows, image[..., rows, :]
        release_pages()


def _draw(
    stage: Stage,
    images: Sequence[Tensor],
    seeds: Sequence[int],
    upscaling: Upscaling,
    defects: Sequence[Defects],
    progress: Progress | None,
) -> list[Tensor]:
    """Run one stage on images (1, C, h, w): (1, C, H, W) on the CPU; grey in, grey out."""
    channels = stage.space.channels
    expanded = [image.expand(-1, channels, -1, -1) for image in images]
    inputs = inputs_for(stage, joined(expanded), upscaling.inputs)
    if stage.contract.has_dial:
        inputs = inputs.with_value(DEFECTS, torch.tensor(defects))

    def sample(tile_px: int) -> Tensor:
        run = Run(
            tiles=Tiles(tile_px),
            hooks=Hooks(progress=progress),
            stream="upscale",
            precision=upscaling.precision,
        )
        return stage.run(seeds, inputs, run=run).cpu()

    with stage.placed():
        scale, (height, width) = stage.contract.scale, images[0].shape[-2:]
        own_px = stage.default_tile_px((height * scale, width * scale))
        side = own_px if upscaling.tile_px is None else upscaling.tile_px
        results = smaller_tiles_if_needed(sample, side, stage.device).split(1)
    return [
        _grey(result) if image.shape[1] < channels else result
        for image, result in zip(images, results, strict=True)
    ]


def _grey(image: Tensor) -> Tensor:
    """The luminance (1, 1, H, W) of (1, 3, H, W), a band at a time, to save memory."""
    result = new_canvas((1, 1, *image.shape[-2:]))
    for rows, band in _bands(image):
        result[..., rows, :] = luminance(band)
    return result


def _part_of(progress: Progress, number: int, count: int) -> Callable[[int, int], None]:
    """Convert the progress of one pass to progress of all passes."""

    def report(done: int, total: int) -> None:
        parts = PROGRESS_PARTS * (number + done / total)
        progress(round(parts), PROGRESS_PARTS * count)

    return report
