"""TIFF, BigTIFF, OME-TIFF and GeoTIFF as images of bands: the numbers as they are stored.

- All samples of a page are bands, alpha too. Bands may also be pages of their own: where OME or
  ImageJ say so, or where a file has as many one-band pages as an image has bands.
- Other pages are images of their own. Thumbnails and reduced copies do not count.
- Min-is-white is inverted, and so is its nodata number. Palettes and subsampled YCbCr are refused.
- GDAL's nodata number is taken over.
- Images with an orientation are turned upright, unless they have a georeference.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, BinaryIO, final

import numpy as np
import torch

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.marks import says_generated
from cascade.imaging.metadata_reading import xmp_of_tiff
from cascade.imaging.orientation import upright
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster, check_dtype
from cascade.imaging.rasters.raster_file import RasterFile
from cascade.imaging.rasters.tiff_origin import GDAL_NODATA, TiffOrigin
from cascade.imaging.tiff_pages import (
    EMBEDDED,
    JPEG,
    LOSSLESS,
    MIN_IS_WHITE,
    PALETTE,
    YCBCR,
    check_segments,
    main_pages,
    open_tiff,
    photometric_of,
    samples_of,
)
from cascade.mapped_arrays import new_array, release_pages

MOST_PIXELS = 2**30  # of a page, which is a file where it is large
PICTURE_AXES = "YXS"  # of tifffile, that lie inside a page
Pages = list[Any]  # of `tifffile.TiffPage`


@final
class TiffBandsFile(RasterFile):
    """An opened TIFF file.

    Args:
        file: open at its start; it must stay open.
        name: the file's name, for error messages.
        layout: how the file is divided into images.

    Raises:
        DataError: if it is damaged, or has too many pages.
    """

    def __init__(self, file: BinaryIO, name: str, layout: Layout) -> None:
        super().__init__(name)
        with opening.readable(name):
            self._file, self._tiff = file, open_tiff(file)
            self._images = images_of(self._tiff, layout, name)

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def _is_generated(self) -> bool:
        """Whether a model drew the file from noise, which its first page alone says."""
        return says_generated(xmp_of_tiff(self._file))

    def decoded(self, number: int) -> Raster:
        pages = self._images[number]
        with opening.readable(self.name):
            joined = _joined(pages, self.name)
            origin = TiffOrigin.of(self._tiff, pages[0], is_generated=self._is_generated)
            if not origin.is_georeferenced:  # its places count pixels as they are stored
                if origin.orientation != 1:
                    joined = upright(torch.from_numpy(joined), origin.orientation).numpy()
                origin = origin.upright()
            return Raster(values=joined, nodata=nodata_of(pages[0]), origin=origin)


def images_of(file: Any, layout: Layout, name: str) -> list[Pages]:
    """The pages of each image of an opened file, one page per image or one per band.

    Args:
        file: `tifffile.TiffFile`.
        layout: how the file is divided into images.
        name: the file's name, for error messages.

    Raises:
        DataError: if there are too many pages.
    """
    pages = main_pages(file, name)
    channels_first = _bands_as_pages(file, pages)
    if channels_first is not None:
        return channels_first
    are_bands = layout.bands is not None and 1 < layout.bands == len(pages)
    if are_bands and all(page.samplesperpixel == 1 for page in pages):
        return [pages]
    return [[page] for page in pages]


def nodata_of(page: Any) -> float | None:
    """The number that stands for missing ones in `Raster.values`; None for none.

    GDAL writes the stored one, before min-is-white is inverted.
    """
    text = page.tags.valueof(GDAL_NODATA)
    try:
        number = None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None
    is_inverted = photometric_of(page) == MIN_IS_WHITE
    return _white(page) - number if is_inverted and number is not None else number


def _bands_as_pages(file: Any, pages: Pages) -> list[Pages] | None:
    """The pages of each image if the file says which ones are its channels, else None."""
    if not (file.is_ome or file.is_imagej) or len(pages) < 2:
        return None
    series = file.series[0]
    outer = [
        (axis, length)
        for axis, length in zip(series.axes, series.shape, strict=True)
        if axis not in PICTURE_AXES
    ]
    axes = [axis for axis, _ in outer]
    lengths = [length for _, length in outer]
    if "C" not in axes or math.prod(lengths) != len(pages):
        return None
    channel = axes.index("C")
    numbers = np.moveaxis(np.arange(len(pages)).reshape(lengths), channel, -1)
    groups = numbers.reshape(-1, lengths[channel]).tolist()
    return [[pages[number] for number in group] for group in groups]


def _joined(pages: Pages, name: str) -> np.ndarray:
    """The numbers of the pages of an image, (C, H, W); of several, one page at a time is decoded.

    Raises:
        DataError: if they differ in size or type.
    """
    first = _values(pages[0], name)
    if len(pages) == 1:
        return first
    bands = sum(page.samplesperpixel for page in pages)
    joined, start = new_array((bands, *first.shape[1:]), first.dtype), 0
    for number, page in enumerate(pages):
        values = _values(page, name) if number else first
        if values.shape[1:] != first.shape[1:] or values.dtype != first.dtype:
            raise DataError(f"{name}: the bands of an image differ in size or type.")
        joined[start : start + len(values)] = values
        start += len(values)
        release_pages()
    return joined


def _values(page: Any, name: str) -> np.ndarray:
    """The numbers of a page, (C, H, W)."""
    check_band_page(page, name)
    values = samples_of(page, range(page.samplesperpixel), name)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if photometric_of(page) != MIN_IS_WHITE:
        return values
    if values.dtype.kind != "u":
        raise DataError(f"{name}: not a readable image (min-is-white of {values.dtype}).")
    return np.subtract(values.dtype.type(_white(page)), values, out=values)


def _white(page: Any) -> int:
    """The largest number that a page of whole numbers can store."""
    return 2**page.bitspersample - 1


def check_band_page(page: Any, name: str) -> None:
    """Check what a page declares before it is decoded.

    Raises:
        DataError: if it is too large, or of a kind that is not read.
    """
    opening.check_size(page.imagewidth, page.imagelength, name, most=MOST_PIXELS)
    photometric = photometric_of(page)
    if photometric == PALETTE:
        raise DataError(f"{name}: has a palette, whose indices are not measured values.")
    if photometric == YCBCR and not (page.compression == JPEG and page.planarconfig == 1):
        raise DataError(f"{name}: not a readable image (YCbCr); save it as RGB.")
    if page.compression not in LOSSLESS and page.compression not in EMBEDDED:
        raise DataError(
            f"{name}: not a readable image (compression {int(page.compression)} of TIFF); save it "
            "with LZW or Deflate."
        )
    dtype = "uint8" if page.dtype == np.bool_ else np.dtype(page.dtype or "V1").newbyteorder("=")
    check_dtype(dtype, name)
    if page.imagedepth != 1:
        raise DataError(f"{name}: not a readable image (a volume); save its slices as pages.")
    check_segments(page, name)
