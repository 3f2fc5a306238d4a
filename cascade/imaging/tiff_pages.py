"""Open TIFF files and read the numbers that their pages store, without interpreting them.

tifffile reads the structure and imagecodecs the compressed data. Both trust what a file declares,
so sizes, strips and embedded pictures are checked here before anything is decoded.

Shapes: S samples per pixel, H and W pixels.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.mapped_arrays import new_array, release_pages

UNCOMPRESSED, OLD_JPEG, JPEG = 1, 6, 7  # of the field Compression
CCITT = (2, 3, 4)
JPEG_2000, WEBP = (33005, 34712), 50001
EMBEDDED = {JPEG: "JPEG", WEBP: "WEBP"} | dict.fromkeys(JPEG_2000, "JPEG2000")
LOSSLESS = {UNCOMPRESSED, *CCITT, 5, 8, 32946, 32773, 34925, 50000}  # LZW, Deflate, PackBits...
PHOTOMETRIC = 262
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, MASK = 0, 1, 2, 3, 4  # of the field Photometric...
SEPARATED, YCBCR, CIELAB, ICCLAB = 5, 6, 8, 9  # separated is CMYK
COLOUR_SAMPLES = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, MASK: 1}
COLOUR_SAMPLES |= {SEPARATED: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
KINDS_REFUSED = {32803: "raw camera data", 34892: "raw camera data", 32844: "HDR", 32845: "HDR"}
REDUCED, MASK_OF_ANOTHER = 1, 4  # bits of the field NewSubfileType
BUFFER_BYTES = 2**26  # of compressed data that are read at once
UNSIGNED, SIGNED, UNDEFINED = 1, 2, 4  # of the field SampleFormat
RGB_565 = (5, 6, 5)  # tifffile scales it to 8 bits
MOST_TAGS = 4096  # of a directory that tifffile reads
ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}


@cache
def tifffile() -> ModuleType:
    """The module `tifffile`, without its log: what matters of it is raised as an error."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    return tifffile


@contextmanager
def opened_tiff(data: bytes, name: str) -> Iterator[Any]:
    """Open a TIFF file, and report everything that fails in the `with` block as one error.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Yields:
        A `tifffile.TiffFile`.

    Raises:
        DataError: if the file is damaged.
    """
    with opening.readable(name), open_tiff(io.BytesIO(data)) as file:
        yield file


def open_tiff(file: BinaryIO) -> Any:
    """Open a TIFF file for several `with readable(…)` blocks; returns a `tifffile.TiffFile`."""
    return tifffile().TiffFile(file, _multifile=False)


def main_pages(file: Any, name: str, at_most: int = opening.MAX_PAGES + 1) -> list[Any]:
    """The pages of a TIFF without thumbnails, reduced copies and masks of other pages.

    Args:
        file: `tifffile.TiffFile`.
        name: the file's name, for error messages.
        at_most: number of pages after which to stop reading.

    Returns:
        `tifffile.TiffPage`s. If all are thumbnails, their full pictures, which cameras and raw
        converters hang below them as SubIFDs; the first page of the file if there are none.

    Raises:
        DataError: if there are too many, or the file ends before its last one.
    """
    _check_chain(file, name)
    pages = _full_pages(file.pages, at_most) or _pictures_below(file) or [file.pages[0]]
    opening.check_page_count(len(pages), name)
    return pages


def _check_chain(file: Any, name: str) -> None:
    """Check that the directories of all pages are in the file: tifffile leaves out the others.

    Raises:
        DataError: if the file ends before the last one, or damage leads to a place without one.
    """
    at, places = file.pages[0].offset, set()
    while at and at not in places:  # the last page may point back to an earlier one
        places.add(at)
        at = _next_directory(file, at)
        if at is None:
            raise DataError(
                f"{name}: not a readable image (truncated: page {len(places)} or a later one is "
                "missing or cut off)."
            )


def _next_directory(file: Any, at: int) -> int | None:
    """The offset of the directory after the one at `at`: 0 for none; None if `at` has none."""
    tiff, handle = file.tiff, file.filehandle
    handle.seek(at)
    count = int.from_bytes(handle.read(tiff.tagnosize), ORDERS[tiff.byteorder])
    if not 0 < count <= MOST_TAGS:
        return None
    handle.seek(at + tiff.tagnosize + count * tiff.tagsize)
    offset = handle.read(tiff.offsetsize)
    whole = len(offset) == tiff.offsetsize
    return int.from_bytes(offset, ORDERS[tiff.byteorder]) if whole else None


def _full_pages(candidates: Iterable[Any], at_most: int | None) -> list[Any]:
    pages, offsets = [], set()
    for page in candidates:
        if page.offset in offsets:  # the last page points back to an earlier one
            break
        offsets.add(page.offset)
        if not page.subfiletype & (REDUCED | MASK_OF_ANOTHER):
            pages.append(page)
            if len(pages) == at_most:
                break
    return pages


def _pictures_below(file: Any) -> list[Any]:
    """The largest picture below the first page that is no thumbnail, if there is one."""
    below = _full_pages(file.pages[0].pages or [], None)
    return [max(below, key=lambda page: page.imagewidth * page.imagelength)] if below else []


def photometric_of(page: Any) -> int:
    """What the numbers of a page mean; a page that does not state it is taken as libtiff does."""
    if PHOTOMETRIC in page.tags or page.compression == OLD_JPEG:
        return int(page.photometric)
    if page.samplesperpixel >= 3:
        return RGB
    return MIN_IS_WHITE if page.compression in CCITT else MIN_IS_BLACK


def bits_of(page: Any) -> int:
    """Bits per sample of what `samples_of` returns."""
    return 8 if page.bitspersample == RGB_565 else page.bitspersample


def check_page(page: Any, name: str) -> None:
    """Check what a page declares before it is decoded.

    Raises:
        DataError: if it is too large, or of a kind that is not read.
    """
    opening.check_size(page.imagewidth, page.imagelength, name)
    _check_meaning(page, name)
    _check_numbers(page, name)
    if page.compression not in LOSSLESS and page.compression not in (*EMBEDDED, OLD_JPEG):
        raise DataError(
            f"{name}: not a readable image (compression {int(page.compression)} of TIFF); save it "
            "with LZW or Deflate."
        )
    if page.compression != OLD_JPEG:
        check_segments(page, name)


def _check_meaning(page: Any, name: str) -> None:
    photometric = photometric_of(page)
    kind = KINDS_REFUSED.get(photometric, f"colour model {photometric} of TIFF")
    if photometric not in COLOUR_SAMPLES:
        raise DataError(f"{name}: not a readable image ({kind}); save it as RGB.")
    if photometric == SEPARATED and page.tags.valueof(332, 1) != 1:
        raise DataError(f"{name}: not a readable image (inks other than CMYK); save it as RGB.")
    if page.imagedepth != 1:
        raise DataError(f"{name}: not a readable image (a volume); save its slices as pages.")
    if page.samplesperpixel < COLOUR_SAMPLES[photometric]:
        raise DataError(
            f"{name}: not a readable image ({page.samplesperpixel} samples per pixel are too few)."
        )


def _check_numbers(page: Any, name: str) -> None:
    formats = {UNSIGNED, UNDEFINED}
    if photometric_of(page) in (CIELAB, ICCLAB):
        formats.add(SIGNED)
    bits = page.bitspersample
    if isinstance(bits, tuple) and bits != RGB_565:
        raise DataError(
            f"{name}: not a readable image (channels of {', '.join(map(str, bits))} bits); save it "
            "with 8 or 16 bits per channel."
        )
    if page.sampleformat not in formats or not 1 <= bits_of(page) <= 16:
        raise DataError(
            f"{name}: has floats, signed values or more than 16 bits per channel, whose range is "
            "unknown; save it with 8 or 16 bits per channel."
        )


def check_segments(page: Any, name: str) -> None:
    """Check the strips or tiles: their number, their place in the file, their decoded size."""
    contiguous = page.samplesperpixel if page.planarconfig == 1 else 1
    if page.is_tiled:
        rows, columns = page.tilelength, page.tilewidth
    else:
        rows, columns = page.rowsperstrip, page.imagewidth
    if min(rows, columns) < 1 or rows * columns * contiguous > 4 * opening.MAX_PIXELS:
        raise DataError(f"{name}: not a readable image (a strip or tile of {columns}x{rows} px).")
    across, down = math.ceil(page.imagewidth / columns), math.ceil(page.imagelength / rows)
    count = across * down * (page.samplesperpixel // contiguous)
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:count]
    end = page.parent.filehandle.size
    complete = [start > 0 and 0 < length <= end - start for start, length in segments]
    if sum(complete) < count:
        missing = count - sum(complete)
        raise DataError(
            f"{name}: not a readable image (truncated: {missing} of {count} strips or tiles are "
            "missing or cut off)."
        )


def samples_of(page: Any, samples: Sequence[int], name: str) -> np.ndarray:
    """Decode some of the samples of a page that `check_page` accepts.

    Args:
        page: `tifffile.TiffPage`.
        samples: numbers of the samples, counted from 0.
        name: the file's name, for error messages.

    Returns:
        (S, H, W) uint8 or uint16, or int8 or int16 if they are signed. YCbCr in JPEG is RGB.

    Raises:
        DataError: if the data are damaged.
    """
    _check_embedded(page, name)
    height, width = page.imagelength, page.imagewidth
    dtype = np.uint8 if page.dtype == np.bool_ else page.dtype
    pixels = new_array((len(samples), height, width), dtype)
    for values, (plane, _, y, x, _), _ in page.segments(maxworkers=1, buffersize=BUFFER_BYTES):
        if values is None:
            raise DataError(f"{name}: not a readable image (a strip or tile is missing).")
        values = values[0, : height - y, : width - x]  # (rows, columns, contiguous samples)
        target = pixels[:, y : y + values.shape[0], x : x + values.shape[1]]
        if page.planarconfig == 1:
            target[:] = np.moveaxis(values[..., list(samples)], -1, 0)
        elif plane in samples:
            target[samples.index(plane)] = values[..., 0]
        release_pages()
    return pixels


def _check_embedded(page: Any, name: str) -> None:
    """Check that a picture inside a strip or tile is not larger than the strip or tile."""
    if page.compression not in EMBEDDED:
        return
    rows = page.tilelength if page.is_tiled else page.rowsperstrip
    columns = page.tilewidth if page.is_tiled else page.imagewidth
    file, kind = page.parent.filehandle, EMBEDDED[page.compression]
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        file.seek(start)
        embedded = file.read(length)
        if kind == "JPEG":
            opening.check_jpeg(embedded, name)
        with Image.open(io.BytesIO(embedded), formats=[kind]) as image:
            if image.width > columns or image.height > rows:
                raise DataError(
                    f"{name}: not a readable image (a strip or tile of {columns}x{rows} px holds "
                    f"{image.width}x{image.height} px)."
                )
