"""How images of bands are resized and encoded before they are written to shards: always as TIFF.

TIFF holds any number of bands of every type that is read, and the number for missing ones.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from cascade.data.examination import EncodedImage
from cascade.errors import DataError
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.tiff_origin import TiffOrigin
from cascade.imaging.rasters.tiff_writing import tiff_bytes


class BandEncoding(NamedTuple):
    """Size and shape of the images in shards.

    Attributes:
        size_px: length of the shorter side; larger images are downscaled with an antialiased
            kernel, smaller ones keep their size. None keeps every size.
        square: whether to crop the central square.
    """

    size_px: int | None = None
    square: bool = False

    def __call__(self, raster: Raster, data: bytes) -> EncodedImage:
        """Encode an image.

        Args:
            raster: the image.
            data: content of the file that it comes from.

        Raises:
            DataError: if it is to be downscaled and has missing numbers.
        """
        if self.square:
            height, width = raster.size
            short = min(height, width)
            y, x = (height - short) // 2, (width - short) // 2
            values = raster.values[:, y : y + short, x : x + short]
            raster = replace(raster, values=values, origin=_place(raster).cropped(y, x))
        if self.size_px is not None and min(raster.size) > self.size_px:
            raster = _downscaled(raster, self.size_px)
        missing = 0.0 if raster.missing is None else float(raster.missing.mean())
        return EncodedImage("tif", tiff_bytes(raster), missing=missing)


def _downscaled(raster: Raster, size_px: int) -> Raster:
    """Bring the shorter side to `size_px`."""
    if raster.missing is not None:
        raise DataError("has NaN or nodata, which cannot be downscaled; keep its size.")
    short, dtype = min(raster.size), raster.values.dtype
    size = tuple(round(side * size_px / short) for side in raster.size)
    values = torch.from_numpy(raster.values.astype(np.float32))[None]
    small = F.interpolate(values, size=size, mode="bicubic", antialias=True)[0].numpy()
    if dtype.kind != "f":
        ends = np.iinfo(dtype)
        small = np.rint(small).clip(ends.min, ends.max)
    origin = _place(raster).scaled(size[0] / raster.size[0], size[1] / raster.size[1])
    return replace(raster, values=small.astype(dtype), origin=origin)


def _place(raster: Raster) -> TiffOrigin:
    """What a TIFF keeps of where an image comes from, which is nothing for other formats."""
    return raster.origin if isinstance(raster.origin, TiffOrigin) else TiffOrigin(tags={})
