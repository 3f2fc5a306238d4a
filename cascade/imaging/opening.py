"""Open image files safely: the formats, the limits, and errors of one line.

- Formats are PNG, JPEG, WebP, BMP, TIFF and GIF, recognised by their content, not their name.
- A file that would decode to more than `MAX_PIXELS` is refused before it is decoded, and so is a
  PNG whose compressed texts or profile grow too large.
- A truncated or otherwise damaged file is refused, never half read.
- Integers and floats of 32 bits are refused: their range is unknown.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cascade.errors import DataError

MAX_PIXELS = 256 * 1024 * 1024
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # none that runs a program
IMAGE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        "png apng jpg jpeg jpe jif jfif webp bmp dib tif tiff gif avif avifs heic heif hif jxl"
    ).split()
)


def read_bytes(path: Path) -> bytes:
    """Read the contents of a file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


@contextmanager
def opened_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image file, and report everything that fails in the `with` block as one error.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: if it is not an image, is too large, has 32 bits per pixel, or if the `with`
            block raises anything.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                check_size(image.width, image.height, name)
                check_range(image, name)
                yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:  # its message contains a memory address
        formats = ", ".join(IMAGE_FORMATS)
        raise DataError(f"{name}: not a readable image (none of {formats}).") from error
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise DataError(f"{name}: not a readable image ({error}).") from error


def check_size(width_px: int, height_px: int, name: str) -> None:
    """Check the size of a picture before it is decoded.

    Raises:
        DataError: if it has more than `MAX_PIXELS`.
    """
    if width_px * height_px > MAX_PIXELS:
        raise DataError(
            f"{name}: {width_px}x{height_px} px is more than the {MAX_PIXELS} pixels allowed; make "
            "it smaller."
        )


def check_range(image: Image.Image, name: str) -> None:
    """Check that the range of a picture's numbers is known.

    Raises:
        DataError: if they have 32 bits.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise DataError(
            f"{name}: has 32 bits per pixel, whose range is unknown; save it with 8 or 16 bits."
        )
