"""Images of bands as TIFF, by tifffile: without loss, with nodata and georeference.

Files are compressed with Deflate and have their bands interleaved. A file of more than 4 GiB is
BigTIFF.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from cascade.imaging.rasters.raster import Raster
from cascade.imaging.tiff_pages import tifffile

GDAL_NODATA = 42113
ROWS = 256  # of a strip
BIG_BYTES = 4 * 2**30 - 2**25
INTEGERS, FLOATS = 2, 3  # predictors
Tag = tuple[int, int | str, int, Any, bool]  # of tifffile: number, type, count, value, once


def tiff_bytes(raster: Raster) -> bytes:
    """The bytes of a TIFF file of one image."""
    file = io.BytesIO()
    write_tiff(file, [raster])
    return file.getvalue()


def write_tiff(file: BinaryIO, rasters: Sequence[Raster], tags: Sequence[Tag] = ()) -> None:
    """Write images as the pages of a TIFF file.

    Args:
        file: an empty file, open for writing.
        rasters: the images.
        tags: further tags of every page.
    """
    size = sum(raster.values.nbytes for raster in rasters)
    with tifffile().TiffWriter(file, bigtiff=size > BIG_BYTES) as writer:
        for raster in rasters:
            own = [] if raster.nodata is None else [nodata_tag(raster.nodata)]
            writer.write(
                _strips(raster.values),
                shape=(*raster.size, raster.bands) if raster.bands > 1 else raster.size,
                dtype=raster.values.dtype,
                photometric="minisblack",
                planarconfig="contig" if raster.bands > 1 else None,
                compression="zlib",
                predictor=FLOATS if raster.values.dtype.kind == "f" else INTEGERS,
                rowsperstrip=ROWS,
                extratags=[*tags, *own],
                metadata=None,
                software=False,
            )


def nodata_tag(nodata: float) -> Tag:
    """The tag in which GDAL keeps the number that stands for missing ones."""
    return GDAL_NODATA, "s", 0, f"{nodata:.17g}", True


def _strips(values: np.ndarray) -> Iterator[np.ndarray]:
    """The strips (rows, W, C) or (rows, W) of an image, from the top."""
    for first in range(0, values.shape[1], ROWS):
        strip = np.moveaxis(values[:, first : first + ROWS], 0, -1)
        yield np.ascontiguousarray(strip if len(values) > 1 else strip[..., 0])
