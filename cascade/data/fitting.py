"""Fits images into a stage's size, and keeps them in 8 bits where that loses nothing.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cascade.data.preparation import TooSmallError
from cascade.errors import DataError
from cascade.imaging.writing import from_uint8, to_uint8
from cascade.resizing import ResizeKernel, resize, resized_known
from cascade.space import MOST_BANDS, Space


def compact(image: Tensor) -> Tensor:
    """Convert an image to uint8 if that keeps its values, else return it unchanged."""
    small = to_uint8(image)
    return small if torch.equal(from_uint8(small), image) else image


def rounded(images: Tensor, space: Space) -> Tensor:
    """Round colour images to uint8; bands stay as they are."""
    return to_uint8(images) if space.is_colour else images


def check_readable(space: Space) -> None:
    """Check that image files hold what a stage gives: pixels of at most 64 bands.

    Raises:
        DataError: if they do not.
    """
    if space.kind != "pixels":
        raise DataError(
            f"image files hold pixels, but the stage makes {space.kind}; give the encoder that "
            "makes them, or train it from Python on a Dataset of tensors."
        )
    if space.channels > MOST_BANDS:
        raise DataError(
            f"images of at most {MOST_BANDS} bands are read, but the stage has {space.channels} "
            "channels; train it from Python on a Dataset of tensors."
        )


def fit_size(image: Tensor, space: Space, name: str) -> Tensor:
    """Fit an image into the stage's size and round it to 8 bits; see `fit_tensor`.

    Returns:
        (C, *space.size) uint8.
    """
    return to_uint8(fit_tensor(image, space, name))


def fit_tensor(image: Tensor, space: Space, name: str, *, enlarge: bool = False) -> Tensor:
    """Downscale an image until it just covers the stage's size, and cut out the middle.

    Args:
        image: (C, H, W) in [-1, 1].
        space: space of the stage.
        name: name of the image for messages.
        enlarge: whether to upscale a smaller image.

    Returns:
        (C, *space.size) in [-1, 1].

    Raises:
        TooSmallError: if the image is smaller than the stage's size and not to be upscaled.
    """
    if not enlarge:
        check_covers(image, space, name)
    middle, kernel = _middle(image, space)
    return resize(middle[None], space.size, kernel)[0]


def fit_known(known: Tensor, space: Space, name: str) -> Tensor:
    """Which values are known after `fit_tensor`: those that come from known values alone.

    Args:
        known: (C, H, W) bool, True at the known values of the image.
        space: space of the stage.
        name: name of the image for messages.

    Returns:
        (C, *space.size) bool.

    Raises:
        DataError: naming the image, if none is left.
    """
    middle, kernel = _middle(known, space)
    result = resized_known(middle, space.size, kernel)
    if not result.any():
        raise DataError(
            f"{name}: at the stage's {space.size_text}, every value depends on one that is NaN or "
            "nodata; leave the image out, or cut the file into smaller ones."
        )
    return result


class KnownCheck(NamedTuple):
    """Checks that images with missing values have known ones left at a stage's size.

    Attributes:
        space: space of the stage.
        enlarge: whether images smaller than the stage are upscaled; if not, they are not checked.
    """

    space: Space
    enlarge: bool = False

    def check(self, known: Tensor, name: str) -> None:
        """Check an image by its known values (C, H, W) bool.

        Raises:
            DataError: as `fit_known`.
        """
        height, width = self.space.size
        covers = known.shape[-2] >= height and known.shape[-1] >= width
        if covers or self.enlarge:
            fit_known(known, self.space, name)


def _middle(image: Tensor, space: Space) -> tuple[Tensor, ResizeKernel]:
    """The part of an image (C, H, W) that fills a stage's size, and the kernel to resize it."""
    height, width = space.size
    rows, columns = image.shape[-2:]
    factor, kernel = min(rows / height, columns / width), space.resize_kernel
    if kernel == "area" and factor >= 1:
        factor = math.floor(factor)  # it averages exactly by whole factors only
    elif kernel == "area":
        kernel = "bicubic"  # it cannot upscale by other than whole factors
    cut = (min(rows, round(height * factor)), min(columns, round(width * factor)))
    y, x = (rows - cut[0]) // 2, (columns - cut[1]) // 2
    return image[:, y : y + cut[0], x : x + cut[1]], kernel


def check_covers(image: Tensor, space: Space, name: str) -> None:
    """Check that an image (C, H, W) is at least as large as a stage's.

    Raises:
        TooSmallError: naming it, if it is smaller.
    """
    rows, columns = image.shape[-2:]
    if rows < space.size[0] or columns < space.size[1]:
        raise TooSmallError(
            f"{name}: {columns}x{rows} px is smaller than the stage's {space.size_text}."
        )


def as_float(image: Tensor) -> Tensor:
    """Convert an image that may be uint8 to float32 in [-1, 1]."""
    return from_uint8(image) if image.dtype == torch.uint8 else image
