"""Images of bands as TIFF, by tifffile: without loss, with nodata and georeference.

Files are compressed with Deflate and have their bands interleaved; large images are tiled, so that
they are written without a copy. A file of more than 4 GiB is BigTIFF.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from cascade.imaging.kept_exif import IMAGE_HISTORY
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.tiff_origin import GDAL_NODATA, TiffOrigin
from cascade.imaging.tiff_fields import XMP
from cascade.imaging.tiff_pages import tifffile
from cascade.mapped_arrays import release_pages

ROWS, TILE_PX = 256, 512  # of a strip; sides of a tile
IN_MEMORY_BYTES = 2**26  # of an image that is written in strips, others are in tiles
BIG_BYTES = 4 * 2**30 - 2**25
INTEGERS, FLOATS = 2, 3  # predictors
Tag = tuple[int, int | str, int, Any, bool]  # of tifffile: number, type, count, value, once


def tiff_bytes(raster: Raster) -> bytes:
    """The bytes of a TIFF file of one image."""
    file = io.BytesIO()
    write_tiff(file, [raster], raster.values.nbytes)
    return file.getvalue()


def write_tiff(
    file: BinaryIO,
    rasters: Iterable[Raster],
    size_bytes: int,
    *,
    description: str | None = None,
    mark: FileMark | None = None,
) -> None:
    """Write images as the pages of a TIFF file, with the georeference of their origins.

    Args:
        file: an empty file, open for writing.
        rasters: the images, which are taken one at a time.
        size_bytes: size of the numbers of all images.
        description: ASCII for the tag ImageDescription; None for none.
        mark: that a trained model made it, which the first page holds; None for none.
    """
    with tifffile().TiffWriter(file, bigtiff=size_bytes > BIG_BYTES) as writer:
        for number, raster in enumerate(rasters):
            origin = raster.origin if isinstance(raster.origin, TiffOrigin) else None
            is_large = raster.values.nbytes > IN_MEMORY_BYTES
            writer.write(
                _tiles([raster.values]) if is_large else _pixels(raster.values),
                shape=(*raster.size, raster.bands) if raster.bands > 1 else raster.size,
                planarconfig="contig" if raster.bands > 1 else None,
                extratags=[
                    *(origin.extra_tags if origin else ()),
                    *_nodata_tags(raster),
                    *(_mark_tags(mark) if number == 0 else ()),
                ],
                metadata=None,
                description=description,
                **_options(raster, origin, is_large=is_large),
                **_meaning(raster, origin),
            )


def write_ome_tiff(
    file: BinaryIO,
    rasters: Iterable[Raster],
    size_bytes: int,
    count: int,
    *,
    mark: FileMark | None = None,
) -> None:
    """Write images as an OME-TIFF, each band in a page of its own; arguments as `write_tiff`.

    The first image says along which axes they lie.

    Args:
        count: number of images.
    """
    images = iter(rasters)
    first = next(images)
    origin = first.origin
    assert isinstance(origin, TiffOrigin)
    axes = "".join(axis for axis, _ in origin.ome_axes)
    lengths = [length for _, length in origin.ome_axes]
    if math.prod(lengths) != count:  # the first image alone, of several
        axes, lengths = ("T", [count]) if count > 1 else ("", [])
    channels = {"Channel": {"Name": list(origin.ome_channels)}} if origin.ome_channels else {}
    bands = (band[None] for raster in itertools.chain([first], images) for band in raster.values)
    is_large = first.values[:1].nbytes > IN_MEMORY_BYTES
    with tifffile().TiffWriter(file, bigtiff=size_bytes > BIG_BYTES, ome=True) as writer:
        writer.write(
            _tiles(bands) if is_large else map(_pixels, bands),
            shape=(*lengths, first.bands, *first.size),
            metadata={"axes": f"{axes}CYX", **(origin.ome or {}), **channels},
            extratags=[*_nodata_tags(first), *_mark_tags(mark)],
            photometric="minisblack",
            **_options(first, origin, is_large=is_large),
        )


def _options(raster: Raster, origin: TiffOrigin | None, *, is_large: bool) -> dict[str, Any]:
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
        **({"tile": (TILE_PX, TILE_PX)} if is_large else {"rowsperstrip": ROWS}),
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


def _mark_tags(mark: FileMark | None) -> list[Tag]:
    """The tags of XMP and of the record, for the first page alone."""
    if mark is None:
        return []
    packet = mark.packet
    return [(XMP, "B", len(packet), packet, True), (IMAGE_HISTORY, "s", 0, mark.record, True)]


def _pixels(values: np.ndarray) -> np.ndarray:
    """An image (C, H, W) as (H, W, C), or as (H, W)."""
    return np.ascontiguousarray(np.moveaxis(values, 0, -1) if len(values) > 1 else values[0])


def _tiles(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The tiles of images (C, H, W), one image after another, row by row."""
    for values in images:
        _, height, width = values.shape
        for y in range(0, height, TILE_PX):
            for x in range(0, width, TILE_PX):
                yield _pixels(values[:, y : y + TILE_PX, x : x + TILE_PX])
            release_pages()
