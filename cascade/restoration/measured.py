"""Reads arrays of whole numbers as measured values, for models of bands.

Shapes: B images, C bands, H and W pixels.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.imaging.rasters.raster import DTYPES, Raster
from cascade.restoration.bands import ClippedNumbers, check_bands
from cascade.space import Space

logger = logging.getLogger(__name__)


def measured(image: Any) -> Any:
    """Arrays of whole numbers as `Raster`s of these numbers; everything else as it is.

    For a stage of bands they are measured numbers in the unit of its range, as in a file; for a
    colour stage their type's largest number is white.

    Args:
        image: a picture, or a list of these, as for `of_each`.

    Returns:
        The same, with a `Raster` in place of an array (H, W) or (H, W, C), and several in place of
        one (B, H, W, C).

    Raises:
        ContractError: for an array of another shape or type than a `Raster` has.
    """
    if isinstance(image, list | tuple):
        parts = [(measured(each), each) for each in image]
        return [e for part, each in parts for e in (part if _is_series(each) else [part])]
    if not _has_whole_numbers(image):
        return image
    if image.ndim not in (2, 3, 4) or not image.size or image.dtype.newbyteorder("=") not in DTYPES:
        raise ContractError(
            "arrays of bands must be (H, W), (H, W, C) or (B, H, W, C) of uint8, uint16 or int16, "
            f"got {image.shape} of {image.dtype}."
        )
    if _is_series(image):
        return [measured(each) for each in image]
    bands = np.moveaxis(image[..., None] if image.ndim == 2 else image, -1, 0)
    return Raster(values=np.ascontiguousarray(bands, bands.dtype.newbyteorder("=")))


def as_given(result: Any, image: Any) -> Any:
    """The results of the `Raster`s of `measured` in the form of the pictures that they stand for.

    Args:
        result: what `of_each` makes of `measured(image)`.
        image: the pictures as they came.
    """
    if isinstance(image, list | tuple):
        rest = iter(result)
        parts = ([next(rest) for _ in each] if _is_series(each) else next(rest) for each in image)
        return [as_given(part, each) for part, each in zip(parts, image, strict=True)]
    if not _has_whole_numbers(image):
        return result
    if _is_series(image):
        return np.stack([as_given(*each) for each in zip(result, image, strict=True)])
    values = np.moveaxis(result.values, 0, -1)
    return values[..., 0] if image.ndim == 2 and values.shape[-1] == 1 else values


def unit_images(image: Any, space: Space) -> Tensor | None:
    """Measured numbers as images (B, C, H, W) float32 in [-1, 1] to start from.

    Numbers outside of the range are clipped, and the log says so.

    Args:
        image: an array of whole numbers, a `Raster`, or a list of these.
        space: the space of the images that a stage takes.

    Returns:
        The images; None for anything else, which `to_tensor` reads.

    Raises:
        ContractError: for other bands than those of the space, or images of different sizes.
    """
    images = list(image) if isinstance(image, list | tuple) else [image]
    if not images or not all(isinstance(e, Raster) or _has_whole_numbers(e) for e in images):
        return None
    rasters, clipped = measured(images), ClippedNumbers(space)
    for each in rasters:
        check_bands(each, space)
        clipped.add(each)
    sizes = dict.fromkeys(f"{each.size[1]}x{each.size[0]}" for each in rasters)
    if len(sizes) != 1:
        raise ContractError(
            f"images to start from must all have the same size, got {' and '.join(sizes)} px."
        )
    if clipped.remark:
        logger.warning("image %s.", clipped.remark)
    return torch.stack([each.unit_image(space, clip=True) for each in rasters])


def _has_whole_numbers(image: Any) -> bool:
    return isinstance(image, np.ndarray) and image.dtype.kind in "ui"


def _is_series(image: Any) -> bool:
    return _has_whole_numbers(image) and image.ndim == 4
