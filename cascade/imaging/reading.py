"""From the bytes of an image file to a tensor, by stated rules.

- Formats are PNG, JPEG, WebP, BMP, TIFF and GIF, told by their content and not by their name.
- Grey, one-bit and palette pictures become RGB.
- An embedded ICC profile is applied, so that all pictures are sRGB; one that is damaged or for
  another kind of picture is ignored, and CMYK without a profile is converted by its plain formula.
- EXIF orientation is applied; a picture whose EXIF is damaged is read as one without.
- Transparent pictures are laid on white, after the conversion to sRGB.
- Grey of 16 bits keeps all its steps and has no profile applied. Colour of 16 bits is read in its
  upper 8 bits, since Pillow has no more and training images are held in 8 bits.
- Integers and floats of 32 bits have no range of their own and are refused.
- Of an animation or a file of many pages, the first picture is read.
- A truncated or otherwise damaged file is refused, never half read. So is one that decodes to more
  than `MAX_PIXELS`, before it is decoded, and a PNG whose packed texts or profile grow too large.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging.colour_profiles import to_srgb

MAX_PIXELS = 256 * 1024 * 1024
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # none that runs a program
TURNS = {  # by the orientation of EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def decode_image(data: bytes, name: str) -> Tensor:
    """Decode an image file.

    Args:
        data: the file's bytes.
        name: of the file, for error messages.

    Returns:
        (3, H, W) float32 in [-1, 1].

    Raises:
        DataError: if it is not an image, is damaged, or is too large.
    """
    with opened_image(data, name) as image:
        image.load()
        turn = TURNS.get(orientation_of(image))
        return pil_to_tensor(image if turn is None else image.transpose(turn), name)


def orientation_of(image: Image.Image) -> int:
    """The orientation of a loaded PIL image by its EXIF, from 1 to 8; 1 where that is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many kinds on damaged blocks
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def opened_image(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open an image file that is no bomb, and give all that goes wrong with it in one line.

    Args:
        data: the file's bytes.
        name: of the file, for error messages.

    Raises:
        DataError: if it is not an image, is too large, or what is done with it in the block fails.
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
    except UnidentifiedImageError as error:  # its own words hold an address in memory
        raise DataError(
            f"{name}: not a readable image (none of {', '.join(IMAGE_FORMATS)})."
        ) from error
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise DataError(f"{name}: not a readable image ({error}).") from error


def check_size(width_px: int, height_px: int, name: str) -> None:
    """Refuse a picture that decodes to more than `MAX_PIXELS`.

    Raises:
        DataError: if it does.
    """
    if width_px * height_px > MAX_PIXELS:
        raise DataError(
            f"{name}: {width_px}x{height_px} px is more than the {MAX_PIXELS} pixels allowed; make "
            "it smaller."
        )


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_image(path: Path) -> Tensor:
    """Read an image file: (3, H, W) float32 in [-1, 1]; see `decode_image`.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    return decode_image(read_bytes(path), str(path))


def pil_to_tensor(image: Image.Image, name: str = "the image") -> Tensor:
    """Pixels of a PIL image by the rules above: (3, H, W) float32 in [-1, 1].

    Raises:
        DataError: if its numbers have no range of their own.
    """
    check_range(image, name)
    if image.mode.startswith("I"):  # 16-bit grey
        grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return (grey.clamp(0, 1) * 2 - 1).expand(3, -1, -1).contiguous()
    pixels = torch.from_numpy(np.array(to_rgb(image)))  # (H, W, 3)
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def check_range(image: Image.Image, name: str) -> None:
    """Refuse numbers of 32 bits.

    Raises:
        DataError: if the picture has them.
    """
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise DataError(
            f"{name}: has 32 bits per pixel, whose range is unknown; save it with 8 or 16 bits."
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of 8 bits in sRGB, laid on white where it is transparent."""
    alpha = None
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        grey = image.mode in ("L", "LA")
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
    if image.mode in ("LA", "1"):
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    colours = to_srgb(image).convert("RGB")
    if alpha is None:
        return colours
    white = Image.new("RGB", image.size, "white")
    return Image.composite(colours, white, alpha)
