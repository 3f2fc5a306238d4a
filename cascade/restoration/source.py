"""An image that is upscaled, and what its result has to agree with.

Shapes: C channels, h and w pixels of the image, H and W of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from cascade.conditioning.defects import CLEAN, Defects
from cascade.conditioning.luminance import luminance
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.resizing import ResizeKernel, resize
from cascade.restoration.kept_areas import KeptAreas, is_grey
from cascade.restoration.measuring import defects_for_network, denoised_input
from cascade.restoration.passes import upsamplers_of
from cascade.sampling.canvas import new_canvas
from cascade.space import Space
from cascade.stage import Stage


class Source(NamedTuple):
    """An image that is upscaled.

    Attributes:
        image: (1, C, h, w), of one channel if it is grey and stays so.
        areas: the areas that stay neutral and flat.
        defects: how noisy and compressed it is; clean if the first stage is not told.
    """

    image: Tensor
    areas: KeptAreas
    defects: Defects

    @classmethod
    def of(cls, image: Tensor, stage: Stage, defects: Defects) -> Source:
        """Prepare an image (C, h, w) for a stage.

        A stage that was trained on pairs may change colours, so that no areas are kept.

        Raises:
            ContractError: if the stage cannot take it.
        """
        space, is_paired = stage.space, stage.contract.needs_partner
        source = _source(image, space)
        if space.is_colour and is_grey(source) and not is_paired:
            source = luminance(source)
        has_colours = source.shape[1] == 3 and space.is_colour
        areas = KeptAreas(source, has_colours=has_colours, are_kept=not is_paired)
        return cls(source, areas, defects)

    def denoised_input(self, result: Tensor, stage: Stage) -> Tensor:
        """The image without its noise, which a result (1, C, H, W) of a stage should agree with."""
        defects = defects_for_network(self.defects, stage)
        if defects == CLEAN:
            return self.image
        size = (self.image.shape[-2], self.image.shape[-1])
        return denoised_input(
            self.image, resample(result, size, stage.space.resize_kernel), defects
        )


def with_channels_of_result(image: Tensor, stages: Sequence[Stage]) -> Tensor:
    """A grey image in three channels if its result may have colours, as that of real pairs.

    Args:
        image: (C, h, w).
        stages: the stages of a pipeline, with at least one upsampler.
    """
    first = upsamplers_of(stages)[0]
    is_expanded = len(image) == 1 and first.contract.needs_partner and first.space.is_colour
    return image.expand(3, -1, -1) if is_expanded else image


def picture_with_channels_of_result(picture: Picture, stages: Sequence[Stage]) -> Picture:
    """The same for a picture, whose grey values are then those of sRGB."""
    if len(with_channels_of_result(picture.colour, stages)) == len(picture.colour):
        return picture
    picture = picture.in_srgb()
    return picture.with_pixels(with_channels_of_result(picture.colour, stages), picture.alpha)


def check_takes_picture(space: Space, picture: Picture, verb: str) -> None:
    """Check that a picture is an image of a space: a colour one, or one of its bands and numbers.

    Args:
        space: the space of the images that a stage takes.
        picture: the picture.
        verb: what the pipeline does with its images, for the message.

    Raises:
        ContractError: if the space has bands, and other numbers than those of the picture.
    """
    own = (len(picture.colour), (0.0, 2.0**picture.bits - 1))
    if not (space.is_colour or own == (space.channels, space.range)):
        raise ContractError(
            f"this pipeline {verb} bands of measured values, not colour images; give a Raster, see "
            "cascade.read_raster, or an array of whole numbers."
        )


def _source(image: Tensor, space: Space) -> Tensor:
    """The image that is upscaled: (1, C, h, w), or (1, 1, h, w) for a grey one.

    Raises:
        ContractError: if stages of this space cannot take it.
    """
    in_colour = space.is_colour
    counts = (1, 3) if in_colour else (space.channels,)
    if image.ndim != 3 or image.shape[0] not in counts:
        shapes = " or ".join(f"({count}, h, w)" for count in counts)
        raise ContractError(f"images to upscale must be {shapes}, got {tuple(image.shape)}.")
    return image[None].float().cpu()


def resample(image: Tensor, size_px: tuple[int, int], kernel: ResizeKernel) -> Tensor:
    """Resize (1, C, H, W) one channel at a time, to save memory."""
    if tuple(image.shape[-2:]) == tuple(size_px):
        return image
    result = new_canvas((*image.shape[:2], *size_px))
    smooth: ResizeKernel = "bicubic" if kernel == "area" else kernel
    for channel in range(image.shape[1]):
        result[:, channel] = resize(image[:, channel, None], size_px, smooth)[:, 0]
    return result
