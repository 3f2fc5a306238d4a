"""Makes one image of a pair from the other, of any size, with a stage that was trained on pairs.

The result has the size of the input and the bands of the stage. The stage runs in tiles. Nothing
holds the result to the input: what both have in common, the stage has learned from the pairs.

Shapes: C' channels and H and W pixels of the input, C channels of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.arguments import whole_number
from cascade.conditioning.paired_image import PairedImage
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.imaging.rasters.raster import Raster
from cascade.mapped_arrays import new_array, release_pages, row_slices
from cascade.restoration.bands import as_stored, check_bands, kind_of_results
from cascade.restoration.further_inputs import check_read, check_restoring, inputs_for
from cascade.restoration.source import check_takes_picture
from cascade.sampling.memory import smaller_tiles_if_needed
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Progress
from cascade.space import Space
from cascade.stage import Run, Stage


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """How to restore a picture. Sampling settings belong to the stage.

    Attributes:
        seed: whole number that decides all noise; the same seed gives the same result.
        tile_px: a tile of the result has at most as many pixels as a square of this side; default:
            512, or the stage's own size if it has attention, and less if memory is short.
        precision: `auto`, `fp32` or `bf16`.
        inputs: inputs of further conditions by name, each for one picture.

    Raises:
        ContractError: if a value is of the wrong kind or out of range.
    """

    seed: int = 0
    tile_px: int | None = None
    precision: Precision = "auto"
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_restoring(self)
        if self.tile_px is not None:
            whole_number("tile_px", self.tile_px, low=1)


def restorer_of(stages: Sequence[Stage]) -> Stage:
    """Find the stage that makes one image of a pair from the other.

    Raises:
        ContractError: if there is none.
    """
    for stage in stages:
        if stage.contract.condition(PairedImage.name) is not None:
            return stage
    raise ContractError(
        "this pipeline has no stage that was trained on pairs of the same size; it cannot "
        "restore images."
    )


def input_space_of(stage: Stage) -> Space:
    """The space of the image that a stage of `restorer_of` takes."""
    condition = stage.contract.condition(PairedImage.name)
    space = None if condition is None else condition.image_space(stage.space)
    assert space is not None
    return space


@torch.no_grad()
def restore_image(
    stages: Sequence[Stage],
    image: Tensor,
    restoration: Restoration,
    *,
    progress: Progress | None = None,
) -> Tensor:
    """Restore an image.

    Args:
        stages: the stages of a pipeline, one of which was trained on pairs.
        image: (C', H, W) in [-1, 1]; a grey one may stand for three equal channels.
        restoration: how to restore it.
        progress: called as `progress(done, total)` while the stage runs.

    Returns:
        (C, H, W) float32 in [-1, 1] on the CPU.

    Raises:
        ContractError: if image or settings do not fit the stage, or memory is short.
    """
    stage = restorer_of(stages)
    check_read(restoration.inputs, [stage])
    inputs = inputs_for(stage, _fitting(image, input_space_of(stage)), restoration.inputs)

    def sample(tile_px: int) -> Tensor:
        run = Run(
            tiles=Tiles(tile_px),
            hooks=Hooks(progress=progress),
            stream="restore",
            precision=restoration.precision,
        )
        return stage.run([restoration.seed], inputs, run=run).cpu()

    with stage.placed():
        own_px = stage.default_tile_px((image.shape[-2], image.shape[-1]))
        side = own_px if restoration.tile_px is None else restoration.tile_px
        return smaller_tiles_if_needed(sample, side, stage.device)[0]


def _fitting(image: Tensor, space: Space) -> Tensor:
    """The input (1, C', H, W) of a stage.

    Raises:
        ContractError: if it has another number of channels.
    """
    if image.ndim == 3 and len(image) == 1 and space.is_colour:
        image = image.expand(3, -1, -1)
    if image.ndim != 3 or len(image) != space.channels:
        raise ContractError(
            f"images to restore must be ({space.channels}, H, W), got {tuple(image.shape)}."
        )
    return image[None].float().cpu()


def restore_picture(
    stages: Sequence[Stage],
    picture: Picture,
    restoration: Restoration,
    *,
    progress: Progress | None = None,
) -> Picture:
    """Restore a picture with a stage that makes colour pictures, and keep its metadata.

    Transparency and the number of bits stay. A grey picture fits a stage that takes one band of all
    numbers of its bits.

    Args:
        stages: the stages of a pipeline, one of which was trained on pairs.
        picture: a picture of any size.
        restoration: how to restore it.
        progress: called as `progress(done, total)` while the stage runs.

    Raises:
        ContractError: if picture or settings do not fit the stage, or memory is short.
    """
    stage = restorer_of(stages)
    check_takes_picture(input_space_of(stage), picture, "restores")
    check_takes_picture(stage.space, picture, "makes")
    picture = picture.in_srgb()
    result = restore_image(stages, picture.image(), restoration, progress=progress)
    return picture.with_pixels(quantised(result, picture.bits), picture.alpha)


def restore_raster(
    stages: Sequence[Stage],
    raster: Raster,
    restoration: Restoration,
    *,
    progress: Progress | None = None,
) -> Raster:
    """Restore an image of bands.

    The result keeps the place of the input. If the stage makes the bands and the range that it
    takes, it keeps the type and the missing numbers too. Otherwise its type is that of
    `kind_of_results`, and pixels are missing that miss a number in any band of the input.

    Args:
        stages: the stages of a pipeline, one of which was trained on pairs.
        raster: an image of any size with the bands that the stage takes.
        restoration: how to restore it.
        progress: called as `progress(done, total)` while the stage runs.

    Raises:
        ContractError: if bands or settings do not fit the stage, or memory is short.
    """
    stage = restorer_of(stages)
    space = input_space_of(stage)
    check_bands(raster, space)
    image = raster.unit_image(space, clip=True)
    result = restore_image(stages, image, restoration, progress=progress)
    like = kind_of_results(raster, space, stage.space)
    values = new_array(result.shape, like.values.dtype)
    for rows in row_slices(result.shape):
        missing = raster.missing_rows(rows)
        if like is not raster:
            missing = np.broadcast_to(missing.any(axis=0), result[:, rows].shape)
        values[:, rows] = as_stored(result[:, rows], stage.space, like, missing)
        release_pages()
    return replace(like, values=values)
