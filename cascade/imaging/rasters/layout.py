"""Which numbers of a file belong to one image: bands, pages and slices.

Shapes: N images, C bands, H and W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cascade.errors import DataError


class Layout(NamedTuple):
    """How to divide a file into images.

    Attributes:
        bands: number of bands of an image, which tells bands from images where the file does not;
            None if unknown.
        axis: axis of a NIfTI volume along which it is cut into slices, 0, 1 or 2.
    """

    bands: int | None = None
    axis: int = 2


def divided(array: np.ndarray, layout: Layout, name: str) -> np.ndarray:
    """Order the axes of an array of one or more images.

    Args:
        array: (H, W), (C, H, W), (H, W, C), (N, C, H, W) or (N, H, W, C); or (N, H, W) for images
            of one band.
        layout: the number of bands decides which axis they are.
        name: the file's name, for error messages.

    Returns:
        (N, C, H, W), a view.

    Raises:
        DataError: if the array has other dimensions, or no axis has the number of bands.
    """
    if array.ndim == 2:
        return array[None, None]
    if array.ndim == 3 and layout.bands == 1 and 1 not in (array.shape[0], array.shape[-1]):
        return array[:, None]
    if array.ndim not in (3, 4):
        raise DataError(f"{name}: has {array.ndim} dimensions; images have 2, 3 or 4.")
    images = array[None] if array.ndim == 3 else array
    bands = layout.bands or min(images.shape[1], images.shape[-1])
    if images.shape[1] == bands:
        return images
    if images.shape[-1] == bands:
        return np.moveaxis(images, -1, 1)
    raise DataError(
        f"{name}: has the shape {array.shape}, in which neither the first nor the last axis of an "
        f"image has {bands} bands."
    )
