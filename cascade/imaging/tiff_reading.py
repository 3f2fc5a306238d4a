"""From a page of a TIFF file to a `Picture`: what the stored numbers mean.

- 1 to 8 bits become 8, and 9 to 16 bits become 16, scaled so that white stays white.
- Min-is-white is inverted. CMYK and Lab become sRGB of the same depth.
- A palette becomes RGB or grey: of 8 bits if its colours have no more, else of 16.
- Transparency is the first extra sample that the file calls alpha, or the only one if it says
  nothing about it. Colours that are multiplied by it are divided again. Samples that the file calls
  unspecified, such as infrared, are left out.
- Four kinds are read through libtiff, by Pillow or libvips: YCbCr outside JPEG, whose subsampling
  tifffile does not undo; L*a*b* in JPEG, which it takes for YCbCr; old-style JPEG, whose scattered
  tables it does not collect; and fax (CCITT), which imagecodecs decodes only since 2026.

Shapes: C channels, S samples per pixel, H and W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import IFDRational
from torch import Tensor

from cascade.errors import DataError
from cascade.imaging.colour_profiles import cmyk_to_srgb, lab_values_to_srgb, with_loss_of_inks
from cascade.imaging.exif_blocks import Directory
from cascade.imaging.kept_exif import exif_losses, kept_exif
from cascade.imaging.metadata import Loss, Metadata
from cascade.imaging.metadata_reading import read_metadata
from cascade.imaging.opening import opened_image
from cascade.imaging.orientation import TURNS, upright_dpi
from cascade.imaging.picture import Picture, assembled
from cascade.imaging.pil_channels import channels_of_pil
from cascade.imaging.resolution import RESOLUTION_TAGS, resolution_of
from cascade.imaging.tiff_fields import begins_at, starting_at
from cascade.imaging.tiff_pages import (
    CCITT,
    CIELAB,
    COLOUR_SAMPLES,
    ICCLAB,
    JPEG,
    MIN_IS_WHITE,
    OLD_JPEG,
    PALETTE,
    SEPARATED,
    UNCOMPRESSED,
    YCBCR,
    bits_of,
    check_page,
    main_pages,
    opened_tiff,
    photometric_of,
    samples_of,
)
from cascade.imaging.vips import libvips

ASSOCIATED, UNASSOCIATED = 1, 2  # of the field ExtraSamples
EXTRA_SAMPLES, COLOUR_MAP, PROFILE = 338, 320, 34675
EXTRA_CHANNELS = Loss("extra channels", "only colours and transparency are read", is_colour=True)


def decode_tiff(data: bytes, name: str, page: int) -> Picture:
    """Decode a page of a TIFF file.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.
        page: counted from 0, thumbnails and reduced copies aside.

    Raises:
        DataError: if it is damaged, too large, of a kind that is not read, or has no such page.
    """
    with opened_tiff(data, name) as file:
        pages = main_pages(file, name, at_most=page + 1)
        if not 0 <= page < len(pages):
            raise DataError(f"{name}: has {len(pages)} pages; there is no page {page + 1}.")
        return picture_of_page(pages[page], data, name)


def picture_of_page(page: Any, data: bytes, name: str) -> Picture:
    """Decode a page of an opened TIFF file.

    Args:
        page: one of `main_pages`.
        data: the file's bytes.
        name: the file's name, for error messages.

    Raises:
        DataError: if it is damaged, too large, or of a kind that is not read.
    """
    check_page(page, name)
    if _needs_libtiff(page):
        return _decode_by_libtiff(page, data, name)
    colour, alpha = _channels(page, name)
    has_profile = photometric_of(page) not in (SEPARATED, CIELAB, ICCLAB)
    metadata = _with_loss_of_samples(_metadata_of(page, data), page, alpha is not None)
    if photometric_of(page) == SEPARATED:
        metadata = with_loss_of_inks(metadata, profile_of_page(page))
    return assembled(
        colour,
        alpha,
        orientation=orientation_of_page(page),
        profile=profile_of_page(page) if has_profile else None,
        is_converted=not has_profile,
        metadata=metadata,
        dpi=_resolution(page),
        file_format="TIFF",
    )


def _metadata_of(page: Any, data: bytes) -> Metadata:
    """The metadata of a page. Unless it comes first, its EXIF is reduced to what is kept.

    So the EXIF is not the whole file, of which every page would need a copy of its own.
    """
    if begins_at(data, page.offset):
        return read_metadata(data, {})
    metadata, at = read_metadata(data, {}, page.offset), page.offset
    return replace(
        metadata,
        exif=kept_exif(data, (page.imagelength, page.imagewidth), at),
        losses=metadata.losses + exif_losses(data, at),
    )


def _with_loss_of_samples(metadata: Metadata, page: Any, has_alpha: bool) -> Metadata:
    """Note samples that are neither colours nor the transparency, such as infrared."""
    if page.samplesperpixel == COLOUR_SAMPLES[photometric_of(page)] + has_alpha:
        return metadata
    return replace(metadata, losses=(*metadata.losses, EXTRA_CHANNELS))


def orientation_of_page(page: Any) -> int:
    """The orientation of a page, from 1 to 8; 1 if it states no valid one."""
    value = page.tags.valueof(Base.Orientation, 1)
    return int(value) if isinstance(value, int) and value in TURNS else 1


def profile_of_page(page: Any) -> bytes | None:
    """The ICC profile of a page; None if there is none."""
    profile = page.tags.valueof(PROFILE)
    return profile if isinstance(profile, bytes) else None


def _resolution(page: Any) -> tuple[float, float] | None:
    """Pixels per inch along the stored rows and columns."""
    directory = Directory()
    for tag in RESOLUTION_TAGS:
        value = page.tags.valueof(tag)
        if value is not None:
            directory[tag] = IFDRational(*value) if isinstance(value, tuple) else value
    return resolution_of(directory)


def _channels(page: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Colour, (1 or 3, H, W), and alpha, (1, H, W) or None, of a page; uint8 or uint16."""
    photometric = photometric_of(page)
    count = COLOUR_SAMPLES[photometric]
    alpha_at, is_multiplied = _alpha_sample(page, count)
    samples = samples_of(page, [*range(count), *([] if alpha_at is None else [alpha_at])], name)
    stored, bits = samples[:count], bits_of(page)
    alpha = None if alpha_at is None else scaled(samples[count:], bits)
    if photometric == PALETTE:
        colour = _looked_up(stored[0], page, name)
        if alpha is not None:
            alpha = scaled(samples[count:], bits, 8 * colour.itemsize)
    elif photometric in (CIELAB, ICCLAB):
        colour = _lab(stored, photometric, name)
    else:
        colour = scaled(stored, bits)
        if alpha is not None and is_multiplied:
            colour = _divided(colour, alpha)
        if photometric == MIN_IS_WHITE:
            colour = np.iinfo(colour.dtype).max - colour
        elif photometric == SEPARATED:
            colour = cmyk_to_srgb(colour, profile_of_page(page))
    return torch.from_numpy(colour), None if alpha is None else torch.from_numpy(alpha)


def _needs_libtiff(page: Any) -> bool:
    """Whether tifffile does not decode a page as it should; see the head of this file."""
    if page.compression in (*CCITT, OLD_JPEG):
        return True
    if page.compression == JPEG and photometric_of(page) in (CIELAB, ICCLAB):
        return True
    is_rgb_when_decoded = page.compression == JPEG and page.planarconfig == 1
    return photometric_of(page) == YCBCR and not is_rgb_when_decoded


def _alpha_sample(page: Any, count: int) -> tuple[int | None, bool]:
    """Which sample is the transparency, and whether the colours are multiplied by it."""
    surplus = page.samplesperpixel - count
    kinds = page.tags.valueof(EXTRA_SAMPLES)
    if kinds is None:
        return (count, False) if surplus == 1 and count in (1, 3) else (None, False)
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    for place, kind in enumerate(kinds[:surplus]):
        if kind in (ASSOCIATED, UNASSOCIATED):
            return count + place, kind == ASSOCIATED
    return None, False


def scaled(values: np.ndarray, bits: int, to_bits: int | None = None) -> np.ndarray:
    """Spread whole numbers of some bits over the whole range of 8 or 16 bits.

    Args:
        values: unsigned, below 2^bits.
        bits: from 1 to 16.
        to_bits: 8 or 16; by default the smaller that is enough.

    Returns:
        uint8 or uint16, of the same shape.
    """
    to_bits = to_bits or (8 if bits <= 8 else 16)
    if bits == to_bits:
        return values
    top, to_top = 2**bits - 1, 2**to_bits - 1
    table = (np.arange(2**bits, dtype=np.int64) * (2 * to_top) + top) // (2 * top)
    return table.astype(np.uint8 if to_bits == 8 else np.uint16)[values]


def _divided(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo the multiplication of the colours, (C, H, W), by the transparency, (1, H, W)."""
    top = np.iinfo(colour.dtype).max
    divisor = np.maximum(alpha, 1).astype(np.uint64)
    quotient = (colour.astype(np.uint64) * top + divisor // 2) // divisor
    return np.minimum(quotient, top).astype(colour.dtype)


def _looked_up(indices: np.ndarray, page: Any, name: str) -> np.ndarray:
    """The colours of a palette, (1 or 3, H, W), for indices, (H, W)."""
    palette = np.asarray(page.tags.valueof(COLOUR_MAP), np.uint16).reshape(3, -1)
    if int(indices.max()) >= palette.shape[1]:
        raise DataError(f"{name}: not a readable image (a colour is missing in the palette).")
    if (palette[0] == palette).all():
        palette = palette[:1]
    return np.stack([each[indices] for each in _narrowed(palette)])


def _narrowed(palette: np.ndarray) -> np.ndarray:
    """A palette of 16 bits in 8, where that loses nothing.

    Writers bring 8 bits to 16 by repeating the byte, by adding a zero byte, or not at all.
    """
    high, low = palette >> 8, palette & 255
    if not high.any():
        return low.astype(np.uint8)
    if not low.any() or (high == low).all():
        return high.astype(np.uint8)
    return palette


def _lab(stored: np.ndarray, photometric: int, name: str) -> np.ndarray:
    """L*a*b* as TIFF 6.0 (signed a and b) or ICC (offset a and b) encodes it, to sRGB."""
    bits = 8 * stored.itemsize
    values = stored.view(f"u{stored.itemsize}")
    scale = 2 ** (bits - 8)
    if photometric == CIELAB:
        lightness = values[0] / np.float32(2**bits - 1) * 100
        a, b = values[1:].view(f"i{stored.itemsize}") / np.float32(scale)
    else:
        lightness = values[0] / np.float32(255 * scale) * 100
        a, b = values[1:] / np.float32(scale) - 128
    return lab_values_to_srgb(np.stack([lightness, a, b]), 16 if bits == 16 else 8)


def _decode_by_libtiff(page: Any, data: bytes, name: str) -> Picture:
    data = starting_at(data, page.offset)
    if photometric_of(page) == YCBCR and page.compression == UNCOMPRESSED:
        colour, alpha, is_upright = _uncompressed(page, data), None, False
    else:
        with opened_image(data, name) as image:
            image.load()  # Pillow turns the pixels of a TIFF, but not its resolution
            (colour, alpha), is_upright = channels_of_pil(image), True
    orientation, dpi = orientation_of_page(page), _resolution(page)
    is_converted = photometric_of(page) in (CIELAB, ICCLAB)
    return assembled(
        colour,
        alpha,
        orientation=1 if is_upright else orientation,
        profile=None if is_converted else profile_of_page(page),
        is_converted=is_converted,
        metadata=read_metadata(data, {}),
        dpi=upright_dpi(dpi, orientation) if is_upright else dpi,
        file_format="TIFF",
    )


def _uncompressed(page: Any, data: bytes) -> Tensor:
    """RGB, (3, H, W) uint8, of uncompressed YCbCr, which Pillow before version 13 misreads."""
    values = libvips().Image.tiffload_buffer(data, fail_on="error").numpy()[..., :3]
    if not page.is_subsampled:  # libvips does not convert these
        size = (values.shape[1], values.shape[0])
        values = np.asarray(Image.frombytes("YCbCr", size, values.tobytes()).convert("RGB"))
    return torch.from_numpy(np.moveaxis(values, -1, 0).copy())
