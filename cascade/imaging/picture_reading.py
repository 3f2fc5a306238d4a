"""From an image file to a `Picture`, whole, by the rules of `cascade/imaging/picture.py`.

This is the only reader of image files: training reads by it too (`cascade/imaging/reading.py`).

- TIFF is read by tifffile (`tiff_reading.py`). Pillow reads everything else of up to 8 bits, and
  libvips reads PNG of 16 bits, since Pillow has no such colour. Colour of animated PNG of 16 bits
  is read in its upper 8, and so are AVIF, HEIC and JPEG XL of more than 8 bits.
- Pages and frames are read one by one. Frames of an animation are composited: each one is what a
  viewer shows at that time.
- BMP, GIF, AVIF, HEIC and JPEG XL are written as PNG by default.

Formats, limits and damaged files: see `cascade/imaging/opening.py`.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging.heif_items import bits_of_heif
from cascade.imaging.jxl_header import jxl_header
from cascade.imaging.metadata import Loss
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.opening import PNG_BITS_AT, format_of, opened_image, read_bytes
from cascade.imaging.picture import Picture, picture_of_pil
from cascade.imaging.png_chunks import without_faults
from cascade.imaging.tiff_pages import check_page, main_pages, opened_tiff, photometric_of
from cascade.imaging.tiff_reading import decode_tiff
from cascade.imaging.truncated_jpeg import ended_jpeg
from cascade.imaging.vips import libvips

Truncated = Literal["refuse", "keep"]  # what happens to a JPEG whose end is missing
PILLOW_TRUNCATED = "image file is truncated"  # how its message begins

LOSS_OF_BITS = Loss(
    "more than 8 bits per channel", "only the upper 8 are read of such files", is_colour=True
)
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
KIND_OF_PHOTOMETRIC = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "grey"}
KIND_OF_PHOTOMETRIC |= {5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab"}
KIND_OF_MODE = {"1": "grey", "L": "grey", "LA": "grey", "La": "grey", "I;16": "grey"}
KIND_OF_MODE |= {"P": "palette", "PA": "palette", "CMYK": "CMYK", "LAB": "Lab", "YCbCr": "YCbCr"}
KIND_OF_PNG = {0: ("grey", 1), 2: ("RGB", 3), 3: ("palette", 1), 4: ("grey", 2), 6: ("RGB", 4)}


class TruncatedError(DataError):
    """The end of a JPEG is missing, which a caller may choose to accept."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a file says about the pixels of its first page.

    Attributes:
        format: Pillow's name for the format, such as "JPEG", "WEBP", "TIFF", "HEIF" or "JXL".
        kind: "grey", "RGB", "palette", "CMYK", "Lab" or "YCbCr".
        bits: per channel, as stored.
        channels: per pixel, as stored, transparency included; 1 for a palette.
        pages: number of pages or frames, as `decode_picture` counts them.
    """

    format: str
    kind: str
    bits: int
    channels: int
    pages: int


def read_picture(path: Path, *, page: int = 0, truncated: Truncated = "refuse") -> Picture:
    """Read an image file; see `decode_picture`.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    return decode_picture(read_bytes(path), str(path), page=page, truncated=truncated)


def decode_picture(
    data: bytes, name: str, *, page: int = 0, truncated: Truncated = "refuse"
) -> Picture:
    """Decode an image file.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.
        page: which page or frame, counted from 0; see `count_pages`.
        truncated: "keep" takes a JPEG whose end is missing as far as it goes: what is missing
            becomes grey, and `Picture.is_truncated` is true.

    Raises:
        TruncatedError: if the end of a JPEG is missing and not to be kept.
        DataError: if it is not an image, is damaged, is too large, has numbers of unknown range, or
            has no such page.
    """
    if format_of(data, name) == "TIFF":
        return decode_tiff(data, name, page)
    try:
        return _decode(data, name, page)
    except DataError as error:
        if format_of(data, name) != "JPEG":
            raise
        if truncated == "refuse":
            raise _truncated_or(error, name) from error
    return replace(_decode(ended_jpeg(data), name, page), is_truncated=True)


def _truncated_or(error: DataError, name: str) -> DataError:
    """The error of a JPEG whose end is missing, if that is what Pillow found, or the same error."""
    if not str(error.__cause__).startswith(PILLOW_TRUNCATED):
        return error
    return TruncatedError(f"{name}: not a readable image (its end is missing).")


def file_facts(data: bytes, name: str) -> FileFacts:
    """Read how a file stores its first page.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: if it is not an image, is damaged, is too large, or is of a kind that is not
            read.
    """
    if format_of(data, name) == "TIFF":
        return _facts_of_tiff(data, name)
    with opened_image(data, name) as image:
        kind, channels, bits = _pixels(image, data)
        return FileFacts(
            format=format_of(data, name),
            kind=kind,
            bits=bits,
            channels=channels,
            pages=frames_of(image),
        )


def count_pages(data: bytes, name: str) -> int:
    """Count the pages of a TIFF, thumbnails aside, or the frames of an animation.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.

    Returns:
        1 for every other file.

    Raises:
        DataError: as `file_facts`.
    """
    return file_facts(data, name).pages


def _facts_of_tiff(data: bytes, name: str) -> FileFacts:
    with opened_tiff(data, name) as file:
        pages = main_pages(file, name)
        check_page(pages[0], name)
        bits = pages[0].bitspersample
        return FileFacts(
            format="TIFF",
            kind=KIND_OF_PHOTOMETRIC[photometric_of(pages[0])],
            bits=max(bits) if isinstance(bits, tuple) else bits,
            channels=pages[0].samplesperpixel,
            pages=len(pages),
        )


def _pixels(image: Image.Image, data: bytes) -> tuple[str, int, int]:
    """Kind, channels and bits of an image that is not TIFF."""
    if image.format == "PNG":
        kind, channels = KIND_OF_PNG[data[PNG_BITS_AT + 1]]
        return kind, channels, data[PNG_BITS_AT]
    bits = {"1": 1, "I;16": 16}.get(image.mode, 8)
    if image.format in ("AVIF", "HEIF"):
        bits = bits_of_heif(data)
    elif image.format == "JXL":
        bits = jxl_header(data).bits or bits
    return KIND_OF_MODE.get(image.mode, "RGB"), len(image.getbands()), bits


def _decode(data: bytes, name: str, page: int) -> Picture:
    """Decode a file that is not TIFF."""
    with opened_image(data, name) as image:
        frames = frames_of(image)
        if not 0 <= page < frames:
            raise DataError(f"{name}: has {frames} pages; there is no page {page + 1}.")
        if frames > 1:
            load_frame(image, page)
        image.load()
        deep_channels = _channels_by_vips(data, name) if is_deep(data) and frames == 1 else None
        metadata, (_, _, bits) = read_metadata(data, image.info), _pixels(image, data)
        picture = picture_of_pil(image, metadata, name, deep_channels=deep_channels)
        return _with_loss_of_bits(picture) if bits > picture.bits else picture


def _with_loss_of_bits(picture: Picture) -> Picture:
    losses = (*picture.metadata.losses, LOSS_OF_BITS)
    return replace(picture, metadata=replace(picture.metadata, losses=losses))


def load_frame(image: Image.Image, number: int) -> None:
    """Load a frame of an opened animation, counted from 0."""
    image.seek(number + has_picture_outside(image))
    image.load()


def frames_of(image: Image.Image) -> int:
    """The number of frames of an opened image; 1 for formats without animations.

    The picture that a PNG shows in programs without animations does not count if it is not part of
    the animation. Of the pictures in a HEIF file or in a JPEG of several (MPO), only the main one
    counts.
    """
    if image.format in ("MPO", "HEIF"):
        return 1
    return max(1, getattr(image, "n_frames", 1) - has_picture_outside(image))


def has_picture_outside(image: Image.Image) -> bool:
    """Whether an opened PNG has a picture in front of its animation that is no frame of it."""
    return bool(image.info.get("default_image") or getattr(image, "default_image", False))


def is_deep(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits per channel."""
    return data.startswith(PNG_HEAD) and data[PNG_BITS_AT] == 16


def _channels_by_vips(data: bytes, name: str) -> tuple[Tensor, Tensor | None]:
    """Colour and alpha of a PNG of 16 bits, (C, H, W) uint16 each."""
    try:
        image = libvips().Image.pngload_buffer(without_faults(data), fail_on="error")
        pixels = torch.from_numpy(image.numpy()).reshape(image.height, image.width, image.bands)
    except libvips().Error as error:
        raise DataError(f"{name}: not a readable image (its pixels are damaged).") from error
    pixels = pixels.permute(2, 0, 1)  # (C, H, W)
    colours = 3 if len(pixels) >= 3 else 1
    alpha = pixels[colours : colours + 1].contiguous() if image.hasalpha() else None
    return pixels[:colours].contiguous(), alpha
