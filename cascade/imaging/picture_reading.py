"""From an image file to a `Picture`, whole, by the rules of `cascade/imaging/picture.py`.

- BMP and GIF are written as PNG by default.
- Of an animation or a file with several pages, the first picture is read.
- Pillow reads everything of up to 8 bits. libvips reads 16 bits, since Pillow has no such colour.
- In TIFF, whole numbers of 1 to 16 bits are read. Floats, signed numbers and 32 bits are refused:
  their range is unknown. CMYK and Lab of 16 bits become sRGB of 8.

Formats, limits and damaged files: see `cascade/imaging/opening.py`.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.ExifTags import Base
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging.exif_blocks import MAIN, Directory, read_directories
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.opening import check_size, opened_image, read_bytes
from cascade.imaging.orientation import upright_dpi
from cascade.imaging.picture import Picture, assembled, picture_of_pil
from cascade.imaging.resolution import resolution_of
from cascade.imaging.vips import PROFILE, cause_of, libvips

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_BITS_AT = 24
TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SAMPLE_FORMAT = 339
SEPARATED, LAB = 5, 8  # of the field PhotometricInterpretation; separated is CMYK
UNSIGNED, UNDEFINED = 1, 4  # of the field SampleFormat


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
        name: the file's name, for error messages.

    Raises:
        DataError: if it is not an image, is damaged, is too large, or has numbers of unknown range.
    """
    if data.startswith(TIFF_HEADS):
        return _decode_tiff(data, name)
    with opened_image(data, name) as image:
        image.load()
        deep_channels = None
        if data.startswith(PNG_HEAD) and data[PNG_BITS_AT] == 16:
            deep_channels = _channels(_opened_by_vips(data, "pngload_buffer", name), name)
        metadata = read_metadata(data, image.info)
        return picture_of_pil(image, metadata, name, deep_channels=deep_channels)


def _decode_tiff(data: bytes, name: str) -> Picture:
    fields = read_directories(data)[MAIN]
    (photometric, *_) = _whole_numbers(fields, Base.PhotometricInterpretation, -1)
    bits = max(_whole_numbers(fields, Base.BitsPerSample, 1))
    if photometric != LAB:
        _check_tiff_numbers(fields, bits, name)
    if bits == 16 and photometric != SEPARATED:
        return _decode_deep_tiff(data, fields, name)
    with opened_image(data, name) as image:
        image.load()  # Pillow turns the pixels of a TIFF, but not its resolution
        picture = picture_of_pil(image, read_metadata(data, image.info), name)
    return replace(picture, dpi=upright_dpi(resolution_of(fields), _orientation(fields)))


def _check_tiff_numbers(fields: Directory, bits: int, name: str) -> None:
    kinds = set(_whole_numbers(fields, SAMPLE_FORMAT, UNSIGNED))
    if bits > 16 or not kinds <= {UNSIGNED, UNDEFINED}:
        raise DataError(
            f"{name}: has floats, signed numbers or more than 16 bits per channel, whose range is "
            "unknown; save it with 8 or 16 bits per channel."
        )


def _decode_deep_tiff(data: bytes, fields: Directory, name: str) -> Picture:
    image = _opened_by_vips(data, "tiffload_buffer", name)
    check_size(image.width, image.height, name)
    colour, alpha = _channels(image, name)
    has_profile = colour.dtype == torch.uint16 and image.get_typeof(PROFILE) != 0
    return assembled(
        colour,
        alpha,
        orientation=_orientation(fields),
        profile=image.get(PROFILE) if has_profile else None,
        is_converted=image.interpretation in ("lab", "labs"),
        metadata=read_metadata(data, {}),
        dpi=resolution_of(fields),
        file_format="TIFF",
    )


def _orientation(fields: Directory) -> int:
    return _whole_numbers(fields, Base.Orientation, 1)[0]


def _whole_numbers(fields: Directory, tag: int, default: int) -> tuple[int, ...]:
    """The values of a field; the default if it is missing or holds anything but whole numbers."""
    value = fields.get(tag)
    values = value if isinstance(value, tuple) else (value,)
    numbers = tuple(each for each in values if isinstance(each, int))
    return numbers if numbers and len(numbers) == len(values) else (default,)


def _opened_by_vips(data: bytes, loader: str, name: str) -> Any:
    """Open a file without decoding it yet; damage in its pixels shows only when they are read."""
    try:
        return getattr(libvips().Image, loader)(data, fail_on="error")
    except libvips().Error as error:
        raise DataError(f"{name}: not a readable image ({cause_of(error)}).") from error


def _channels(image: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha of a libvips image, (C, H, W) each; Lab as 8-bit sRGB."""
    has_alpha = image.hasalpha()
    if image.interpretation in ("lab", "labs"):
        image = image.colourspace("srgb").cast("uchar")
    try:
        pixels = torch.from_numpy(image.numpy()).reshape(image.height, image.width, image.bands)
    except libvips().Error as error:
        raise DataError(f"{name}: not a readable image ({cause_of(error)}).") from error
    if image.format not in ("uchar", "ushort"):
        raise DataError(f"{name}: has {image.format} numbers; save it with 8 or 16 bits.")
    pixels = pixels.permute(2, 0, 1)  # (C, H, W)
    colours = 3 if len(pixels) >= 3 else 1
    alpha = pixels[colours : colours + 1].contiguous() if has_alpha else None
    return pixels[:colours].contiguous(), alpha
