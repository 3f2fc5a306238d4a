"""Open image files safely: the formats, the limits, and errors of one line.

- The format is recognised by the file's content, not by its name. The formats are those of
  `FORMATS_OF_HEADS`, and AVIF and HEIF, which share a container.
- HEIF (HEIC) and JPEG XL need an optional package, which is imported when such a file arrives.
- A file that would decode to more than `MAX_PIXELS` a page is refused before it is decoded, and so
  is one of more than `MAX_PAGES`. Texts and profiles of PNG that are damaged or grow too large are
  left out.
- A truncated or otherwise damaged file is refused, never half read, unless the caller asks to keep
  what is there of a JPEG (`picture_reading.py`).
- Integers and floats of 32 bits are refused: their range is unknown.
- Animated JPEG XL is refused: its reader returns the last frame alone.
"""

from __future__ import annotations

import importlib
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin
from PIL.ExifTags import Base

from cascade.errors import DataError, first_line
from cascade.extras import install_command
from cascade.imaging.gif_blocks import is_whole_gif
from cascade.imaging.jpeg_segments import obstacle_in_jpeg
from cascade.imaging.jxl_header import jxl_header
from cascade.imaging.png_chunks import without_faults

MAX_PIXELS = 256 * 1024 * 1024
MAX_PAGES = 10_000  # of one file
LIMIT_OF_PILLOW = threading.Lock()  # held while it is changed; Pillow refuses twice the limit
INTERNAL_ERRORS = (struct.error, LookupError, TypeError, AttributeError, ArithmeticError)
INTERNAL_ERRORS += (AssertionError,)
FORMATS_OF_HEADS = {  # Pillow's names; none of these formats can contain a program
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JXL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JXL",
}
PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")  # without optional packages
PNG_BITS_AT = 24  # offset in the file, in bytes
AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
FORMAT_NAMES = ("PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF", "AVIF", "HEIC", "JPEG XL")
IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".webp", ".bmp", ".dib", ".tif"}
    | {".tiff", ".gif", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl"}
)
OPTIONAL_READERS = {  # format: what people call it, module, package, extra
    "HEIF": ("HEIC", "pillow_heif", "pillow-heif", "heif"),
    "JXL": ("JPEG XL", "pillow_jxl", "pillow-jxl-plugin", "jxl"),
}


def read_bytes(path: Path) -> bytes:
    """Read the contents of a file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def format_of(data: bytes, name: str) -> str:
    """Recognise the format of an image file by its first bytes.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Returns:
        Pillow's name: PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF, HEIF or JXL.

    Raises:
        DataError: if it is none of these.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    brands = _brands(data)
    if brands & AVIF_BRANDS:
        return "AVIF"
    if brands & HEIF_BRANDS:
        return "HEIF"
    for head, file_format in FORMATS_OF_HEADS.items():
        if data.startswith(head):
            return file_format
    cause = f"none of {', '.join(FORMAT_NAMES)}" if data else "the file is empty"
    raise DataError(f"{name}: not a readable image ({cause}).")


def _brands(data: bytes) -> set[bytes]:
    """The brands that an ISO base media file declares at its start; empty for other files."""
    if data[4:8] != b"ftyp":
        return set()
    (length,) = struct.unpack_from(">L", data)
    box = data[8 : min(length, 256)]
    return {box[at : at + 4] for at in range(0, len(box), 4) if at != 4}  # 4 is the version


@contextmanager
def opened_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image file, and report everything that fails in the `with` block as one error.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: if it is not an image, is too large, has 32 bits per pixel, needs a package that
            is not installed, or if the `with` block raises anything.
    """
    with readable(name), open_image(data, name) as image:
        yield image


def open_image(data: bytes, name: str) -> Image.Image:
    """Open an image file for several `with readable(…)` blocks; see `opened_image`.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: as `opened_image`.
    """
    file_format = format_of(data, name)
    _import_reader(file_format, name)
    with readable(name):
        if file_format == "JPEG":
            check_jpeg(data, name)
        elif file_format == "PNG":
            data = without_faults(data)
        elif file_format == "GIF" and not is_whole_gif(data):  # Pillow reads fewer frames of it
            raise DataError(f"{name}: not a readable image (its end is missing).")
        elif file_format == "JXL":  # its reader decodes the file when it opens it
            _check_jxl(data, name)
        image = opened_by_pillow(io.BytesIO(data), file_format)
        check_size(image.width, image.height, name)
        check_range(image, name)
        if isinstance(image, PngImagePlugin.PngImageFile):
            _scale_transparency(image, data)
        elif file_format == "JXL":
            _drop_applied_orientation(image, data)
        return image


def opened_by_pillow(file: BinaryIO, file_format: str) -> Image.Image:
    """Open a file by Pillow, whose own limit is lower than `MAX_PIXELS`."""
    with LIMIT_OF_PILLOW:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if limit is None else max(limit, MAX_PIXELS // 2)
        try:
            return Image.open(file, formats=[file_format])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Report everything that a decoder raises in the `with` block as one error of one line.

    Args:
        name: the file's name.

    Raises:
        DataError: if the block raises anything.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:  # its message contains a memory address
        raise DataError(f"{name}: not a readable image (its header is damaged).") from error
    except MemoryError as error:
        raise DataError(f"{name}: not a readable image (too large for the memory).") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name}: has more than the {MAX_PIXELS} pixels allowed; make it smaller."
        ) from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise DataError(f"{name}: not a readable image ({_cause_of(error)}).") from error


def _cause_of(error: Exception) -> str:
    """What is wrong with a file, by the error of a decoder."""
    text = str(error).strip()
    says_nothing = isinstance(error, INTERNAL_ERRORS) or not text or "build `libjxl`" in text
    return "it is damaged or cut off" if says_nothing else first_line(error)


def _import_reader(file_format: str, name: str) -> None:
    """Import the optional package that reads a format.

    Raises:
        DataError: if it is not installed.
    """
    if file_format not in OPTIONAL_READERS:
        return
    title, module, package, extra = OPTIONAL_READERS[file_format]
    try:
        reader = importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{name}: {title} needs the package {package}, which is not installed: "
            f"{install_command(extra)}"
        ) from error
    if file_format == "HEIF":
        reader.register_heif_opener(thumbnails=False)


def _scale_transparency(image: Image.Image, data: bytes) -> None:
    """Bring the transparent value of a grey PNG of 2 or 4 bits to 8 bits, like its pixels.

    Args:
        image: opened, not loaded.
        data: the PNG's bytes.
    """
    bits, value = data[PNG_BITS_AT], image.info.get("transparency")
    if bits in (2, 4) and image.mode == "L" and isinstance(value, int):
        image.info["transparency"] = value % 2**bits * 255 // (2**bits - 1)


def _check_jxl(data: bytes, name: str) -> None:
    """Check size and kind of a JPEG XL before it is decoded.

    Raises:
        DataError: if it is too large, or an animation, of which the reader returns the last frame.
    """
    header = jxl_header(data)
    check_size(header.width_px, header.height_px, name)
    if header.is_animation:
        raise DataError(f"{name}: animated JPEG XL cannot be read; save it as an animated PNG.")


def _drop_applied_orientation(image: Image.Image, data: bytes) -> None:
    """Set the orientation in EXIF to 1 if the JPEG XL decoder has applied one already.

    It applies that of the codestream, except to a JPEG that it restores as it was.
    """
    if jxl_header(data).orientation != 1 and not getattr(image, "jpeg", False):
        image.getexif()[Base.Orientation] = 1


def check_jpeg(data: bytes, name: str) -> None:
    """Check that a JPEG is of a kind that is read.

    Raises:
        DataError: if it is JPEG-LS, or has an unusual number of bits or channels.
    """
    obstacle = obstacle_in_jpeg(data)
    if obstacle:
        raise DataError(f"{name}: not a readable image ({obstacle}); save it as PNG or TIFF.")


def check_size(width_px: int, height_px: int, name: str, *, most: int | None = None) -> None:
    """Check the size of a picture before it is decoded.

    Args:
        width_px: width of the picture.
        height_px: height of the picture.
        name: name of the file, for messages.
        most: largest number of pixels; None for `MAX_PIXELS`.

    Raises:
        DataError: if it has no pixels, or more than `most`.
    """
    most = MAX_PIXELS if most is None else most
    if width_px < 1 or height_px < 1:
        raise DataError(f"{name}: not a readable image ({width_px}x{height_px} px).")
    if width_px * height_px > most:
        raise DataError(
            f"{name}: {width_px}x{height_px} px is more than the {most} pixels allowed; make "
            "it smaller."
        )


def check_page_count(count: int, name: str) -> None:
    """Check the number of pages or frames of a file.

    Raises:
        DataError: if there are more than `MAX_PAGES`.
    """
    if count > MAX_PAGES:
        raise DataError(f"{name}: has more than {MAX_PAGES:,} pages or frames; split it.")


def check_range(image: Image.Image, name: str) -> None:
    """Check that the range of a picture's numbers is known.

    Raises:
        DataError: if they have 32 bits.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise DataError(
            f"{name}: has 32 bits per pixel, whose range is unknown; save it with 8 or 16 bits."
        )
