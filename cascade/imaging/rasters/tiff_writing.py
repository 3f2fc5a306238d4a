"""Images of bands as TIFF, by tifffile: without loss, with nodata and georeference.

Files are compressed with Deflate and have their bands interleaved. A file of more than 4 GiB is
BigTIFF.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.tiff_origin import GDAL_NODATA, TiffOrigin
from cascade.imaging.tiff_pages import tifffile

ROWS = 256  # of a strip
BIG_BYTES = 4 * 2**30 - 2**25
INTEGERS, FLOATS = 2, 3  # predictors
Tag = tuple[int, int | str, int, Any, bool]  # of tifffile: number, type, count, value, once


def tiff_bytes(raster: Raster) -> bytes:
    """The bytes of a TIFF file of one image."""
    file = io.BytesIO()
    write_tiff(file, [raster], raster.values.nbytes)
    return file.getvalue()


def write_tiff(
    file: BinaryIO, rasters: Iterable[Raster], size_bytes: int, *, description: str | None = None
) -> None:
    """Write images as the pages of a TIFF file, with the georeference of their origins.

    Args:
        file: an empty file, open for writing.
        rasters: the images, which are taken one at a time.
        size_bytes: size of the numbers of all images.
        description: ASCII for the tag ImageDescription; None for none.
    """
    with tifffile().TiffWriter(file, bigtiff=size_bytes > BIG_BYTES) as writer:
        for raster in rasters:
            origin = raster.origin if isinstance(raster.origin, TiffOrigin) else None
            writer.write(
                _strips(raster.values),
                shape=(*raster.size, raster.bands) if raster.bands > 1 else raster.size,
                planarconfig="contig" if raster.bands > 1 else None,
                rowsperstrip=ROWS,
                extratags=[*(origin.extra_tags if origin else ()), *_nodata_tags(raster)],
                metadata=None,
                description=description,
                **_options(raster, origin),
                **_meaning(raster, origin),
            )


def write_ome_tiff(file: BinaryIO, rasters: Iterable[Raster], size_bytes: int) -> None:
    """Write images as an OME-TIFF, each band in a page of its own; arguments as `write_tiff`.

    The first image says how many there are, along which axes.
    """
    first, *rest = rasters
    origin = first.origin
    assert isinstance(origin, TiffOrigin)
    axes = "".join(axis for axis, _ in origin.ome_axes)
    lengths = [length for _, length in origin.ome_axes]
    if math.prod(lengths) != 1 + len(rest):  # the first image alone, of several
        axes, lengths = ("T", [1 + len(rest)]) if rest else ("", [])
    channels = {"Channel": {"Name": list(origin.ome_channels)}} if origin.ome_channels else {}
    with tifffile().TiffWriter(file, bigtiff=size_bytes > BIG_BYTES, ome=True) as writer:
        writer.write(
            (np.ascontiguousarray(band) for raster in (first, *rest) for band in raster.values),
            shape=(*lengths, first.bands, *first.size),
            metadata={"axes": f"{axes}CYX", **(origin.ome or {}), **channels},
            extratags=_nodata_tags(first),
            photometric="minisblack",
            **_options(first, origin),
        )


def _options(raster: Raster, origin: TiffOrigin | None) -> dict[str, Any]:
    """What pages of both kinds have in common."""
    options = {} if origin is None or origin.resolution is None else {
        "resolution": origin.resolution,
        "resolutionunit": origin.resolution_unit,
    }  # fmt: skip
    return {
        "dtype": raster.values.dtype,
        "compression": "zlib",
        "predictor": FLOATS if raster.values.dtype.kind == "f" else INTEGERS,
        "software": False,
        **options,
    }


def _meaning(raster: Raster, origin: TiffOrigin | None) -> dict[str, Any]:
    """What the bands of a page are."""
    is_rgb = origin is not None and origin.is_rgb and raster.bands >= 3
    further = raster.bands - (3 if is_rgb else 1)
    kinds = () if origin is None else origin.extra_samples
    meaning: dict[str, Any] = {"photometric": "rgb" if is_rgb else "minisblack"}
    return meaning | ({"extrasamples": kinds} if further and len(kinds) == further else {})


def _nodata_tags(raster: Raster) -> list[Tag]:
    """The tag in which GDAL keeps the number that stands for missing ones, if there is any."""
    if raster.nodata is None:
        return []
    return [(GDAL_NODATA, "s", 0, f"{raster.nodata:.17g}", True)]


def _strips(values: np.ndarray) -> Iterator[np.ndarray]:
    """The strips (rows, W, C) or (rows, W) of an image, from the top."""
    for first in range(0, values.shape[1], ROWS):
        strip = np.moveaxis(values[:, first : first + ROWS], 0, -1)
        yield np.ascontiguousarray(strip if len(values) > 1 else strip[..., 0])
