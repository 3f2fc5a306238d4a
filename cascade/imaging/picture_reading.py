"""From an image file to a `Picture`, whole, by the rules of `cascade/imaging/picture.py`.

- Formats are PNG, JPEG, WebP, BMP, TIFF and GIF, told by their content and not by their name. BMP
  and GIF are written as PNG by default.
- Of an animation or a file of many pages, the first picture is read.
- Pillow reads all but 16 bits, which libvips reads, since Pillow has no colour of 16 bits.
- In TIFF, whole numbers of 1 to 16 bits are read; floats, signed numbers and 32 bits have no range
  of their own and are refused. CMYK and Lab of 16 bits become sRGB of 8.
- A truncated or otherwise damaged file is refused, never half read. So is one that decodes to more
  than `MAX_PIXELS`, before it is decoded.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging import exif
from cascade.imaging.picture import Picture, assembled, exif_block, picture_of_pil, turned_dpi
from cascade.imaging.reading import check_size, opened_image, read_bytes
from cascade.imaging.tiff_fields import DamagedFieldsError, Directory, read_fields
from cascade.imaging.vips import first_line, libvips

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_BITS_AT = 24
WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLE_FORMAT = 256, 257, 258, 262, 339
SEPARATED, LAB = 5, 8  # photometric
UNSIGNED, UNDEFINED = 1, 4  # sample formats
PROFILE = "icc-profile-data"


def read_picture(path: Path) -> Picture:
    """Read an image file; see `decode_picture`.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    return decode_picture(read_bytes(path), str(path))


def decode_picture(data: bytes, name: str) -> Picture:
    """Decode an image file.

    Args:
        data: the file's bytes.
        name: of the file, for error messages.

    Raises:
        DataError: if it is not an image, is damaged, is too large or has numbers without a range.
    """
    fields = _tiff_fields(data, name)
    if _bits(fields) == 16 and _photometric(fields) != SEPARATED:  # that is CMYK
        return _deep_tiff(data, fields, name)
    with opened_image(data, name) as image:
        image.load()
        block = data if fields else exif_block(image)
        deep = None
        if data.startswith(PNG_HEAD) and data[PNG_BITS_AT] == 16:
            deep = _channels(_opened_by_vips(data, "pngload_buffer", name), name)
        picture = picture_of_pil(image, block, name, deep=deep)
    if fields:  # Pillow turns the pixels of a TIFF, but not its resolution
        dpi = turned_dpi(exif.resolution_of(fields), _orientation(fields))
        return replace(picture, dpi=dpi)
    return picture


def _tiff_fields(data: bytes, name: str) -> Directory:
    """Of a TIFF file whose numbers have a range; empty for other files."""
    if not data.startswith(TIFF_HEADS):
        return {}
    try:
        fields = read_fields(data)
    except DamagedFieldsError as error:
        raise DataError(f"{name}: not a readable image ({error}).") from error
    kinds = set(exif.numbers(fields, SAMPLE_FORMAT, (UNSIGNED,)))
    if _photometric(fields) == LAB:
        return fields
    if _bits(fields) > 16 or not kinds <= {UNSIGNED, UNDEFINED}:
        raise DataError(
            f"{name}: has floats, signed numbers or more than 16 bits per channel, whose range is "
            "unknown; save it with 8 or 16 bits per channel."
        )
    return fields


def _bits(fields: Directory) -> int:
    """Of each channel in a TIFF file."""
    return max(exif.numbers(fields, BITS, (1,)))


def _photometric(fields: Directory) -> int:
    """What the channels of a TIFF file mean; -1 if it does not say."""
    return exif.numbers(fields, PHOTOMETRIC, (-1,))[0]


def _orientation(fields: Directory) -> int:
    return exif.numbers(fields, exif.ORIENTATION, (1,))[0]


def _deep_tiff(data: bytes, fields: Directory, name: str) -> Picture:
    (width, *_), (height, *_) = (exif.numbers(fields, tag, (0,)) for tag in (WIDTH, HEIGHT))
    check_size(width, height, name)
    image = _opened_by_vips(data, "tiffload_buffer", name)
    colour, alpha = _channels(image, name)
    embedded = colour.dtype == torch.uint16 and image.get_typeof(PROFILE) != 0
    return assembled(
        colour,
        alpha,
        orientation=_orientation(fields),
        profile=image.get(PROFILE) if embedded else None,
        block=data,
        dpi=exif.resolution_of(fields),
        file_format="TIFF",
    )


def _opened_by_vips(data: bytes, loader: str, name: str) -> Any:
    """A lazy image; damage in its pixels shows when they are asked for."""
    try:
        return getattr(libvips().Image, loader)(data, fail_on="error")
    except libvips().Error as error:
        raise DataError(f"{name}: not a readable image ({first_line(error)}).") from error


def _channels(image: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha, (C, H, W) each; Lab as 8-bit sRGB."""
    has_alpha = image.hasalpha()
    if image.interpretation in ("lab", "labs"):
        image = image.colourspace("srgb").cast("uchar")
    try:
        pixels = torch.from_numpy(image.numpy()).reshape(image.height, image.width, image.bands)
    except libvips().Error as error:
        raise DataError(f"{name}: not a readable image ({first_line(error)}).") from error
    if image.format not in ("uchar", "ushort"):
        raise DataError(f"{name}: has {image.format} numbers; save it with 8 or 16 bits.")
    pixels = pixels.permute(2, 0, 1)  # (C, H, W)
    colours = 3 if len(pixels) >= 3 else 1
    alpha = pixels[colours : colours + 1].contiguous() if has_alpha else None
    return pixels[:colours].contiguous(), alpha
