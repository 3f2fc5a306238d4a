"""Convert colours from their embedded ICC profile to sRGB, by Little CMS.

Little CMS is called through Pillow for images of 8 bits, and through libvips for 16 bits and for
grey, where Pillow has neither.

Shapes: H and W pixels.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageCms

from cascade.imaging.metadata import Loss, Metadata
from cascade.imaging.vips import FORM_OF_BITS, GREY_OF_BITS, PROFILE, RGB_OF_BITS, libvips

DTYPE_OF_BITS = {8: np.uint8, 16: np.uint16}
SRGB = ImageCms.createProfile("sRGB")
SRGB_LEVELS = 2  # of 255, by which the profiles of sRGB differ
VIPS_INTENTS = ("perceptual", "relative", "saturation", "absolute")  # by the number of ICC


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image from its embedded profile to sRGB.

    The profile's own rendering intent is used. A profile that is damaged, or for another kind of
    image (such as one for print in an RGB file), is ignored, as browsers do.

    Args:
        image: mode L, RGB or CMYK; an image of any other mode is returned unchanged.

    Returns:
        RGB, or L if the image is grey; the image itself if there is nothing to convert.
    """
    profile_data = image.info.get("icc_profile")
    if not profile_data:
        return image
    if image.mode == "L":
        curve = grey_curve(profile_data, 8)
        return image if curve is None else image.point(curve.tolist())
    try:
        transform = _transform(profile_data, image.mode)
        return image if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image of mode LAB to RGB in sRGB."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), SRGB, "LAB", "RGB")
    return transform.apply(image)


def cmyk_to_srgb(inks: np.ndarray, profile_data: bytes | None) -> np.ndarray:
    """Convert CMYK to sRGB by its profile, or by the plain formula if that is missing or damaged.

    Args:
        inks: (4, H, W) uint8 or uint16; the highest number is full ink.
        profile_data: ICC profile.

    Returns:
        (3, H, W) of the same type.
    """
    if inks.dtype == np.uint8:
        image = Image.fromarray(np.ascontiguousarray(np.moveaxis(inks, 0, -1)), "CMYK")
        image.info["icc_profile"] = profile_data
        return _planes(np.asarray(to_srgb(image).convert("RGB")))
    if profile_data is not None and profile_space(profile_data) == "CMYK":
        image = _vips_image(np.moveaxis(inks, 0, -1), "cmyk", profile_data)
        intent = VIPS_INTENTS[ImageCms.getDefaultIntent(io.BytesIO(profile_data))]
        try:
            converted = image.icc_transform("srgb", embedded=True, intent=intent, depth=16)
            return _planes(converted.numpy())
        except libvips().Error:
            pass
    light = (65535 - inks).astype(np.uint32)
    return ((light[:3] * light[3] + 32767) // 65535).astype(np.uint16)


def with_loss_of_inks(metadata: Metadata, profile_data: bytes | None) -> Metadata:
    """Note that a picture of CMYK became sRGB, and by which rule.

    Args:
        metadata: of the picture.
        profile_data: ICC profile.
    """
    by_profile = profile_space(profile_data) == "CMYK"
    rule = "their profile" if by_profile else "a plain formula, without a profile of theirs"
    lost = Loss("CMYK inks", f"they became sRGB by {rule}", is_colour=True)
    return replace(metadata, losses=(*metadata.losses, lost))


def lab_values_to_srgb(lab: np.ndarray, bits: Literal[8, 16]) -> np.ndarray:
    """Convert L*a*b* of the white point D50 to sRGB.

    Args:
        lab: (3, H, W) float32; L* in [0, 100].
        bits: per channel of the result, 8 or 16.

    Returns:
        (3, H, W) uint8 or uint16.
    """
    height, width = lab.shape[1:]
    values = np.ascontiguousarray(np.moveaxis(lab, 0, -1), np.float32)
    image = libvips().Image.new_from_memory(values.data, width, height, 3, "float")
    image = image.copy(interpretation="lab")
    converted = image.icc_export(output_profile="srgb", depth=bits, intent="relative")
    return _planes(converted.numpy())


def _planes(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) to (C, H, W)."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


@lru_cache(maxsize=16)
def grey_curve(profile_data: bytes, bits: Literal[8, 16]) -> np.ndarray | None:
    """Tabulate the sRGB value of each value of a grey profile.

    Little CMS converts grey to RGB by a table of 33 entries, which is up to 10 levels of 255 off.
    It is exact in XYZ of floats, so the Y of that is encoded here.

    Args:
        profile_data: ICC profile.
        bits: number of bits of a value, in both spaces: 8 or 16.

    Returns:
        (2^bits,) uint8 or uint16; None if the profile is damaged or not for grey.
    """
    if profile_space(profile_data) != "GRAY":
        return None
    ramp = np.arange(2**bits, dtype=DTYPE_OF_BITS[bits])
    image = _vips_image(ramp[None, :, None], GREY_OF_BITS[bits], profile_data)
    try:
        xyz = image.icc_import(embedded=True, pcs="xyz", intent="relative").numpy()
    except libvips().Error:
        return None
    linear = xyz[0, :, 1].astype(np.float64).clip(0, 100) / 100
    return (_srgb_encoded(linear) * ramp[-1]).round().clip(0).astype(ramp.dtype)


def _srgb_encoded(linear: np.ndarray) -> np.ndarray:
    """The curve of sRGB, IEC 61966-2-1: [0, 1] to [0, 1]."""
    low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high)


def srgb_colours(colour: np.ndarray, profile_data: bytes) -> np.ndarray | None:
    """Convert RGB from its profile to sRGB, clipped to the colours that sRGB has.

    Args:
        colour: (3, H, W) uint8 or uint16.
        profile_data: ICC profile.

    Returns:
        The same shape and type; None if the colours are in sRGB already or the profile is damaged.
    """
    if profile_space(profile_data) != "RGB" or _is_srgb(profile_data):
        return None
    bits = 8 * colour.itemsize
    image = _vips_image(np.moveaxis(colour, 0, -1), RGB_OF_BITS[bits], profile_data)
    try:
        converted = image.icc_transform("srgb", embedded=True, intent="relative", depth=bits)
        return np.moveaxis(converted.numpy(), -1, 0)
    except libvips().Error:
        return None


def profile_space(profile_data: bytes | None) -> str | None:
    """The kind of colours that a profile is for, such as "RGB" or "GRAY"; None if it is damaged."""
    if not profile_data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_data))
        return getattr(profile.profile, "xcolor_space", "").strip()
    except (ImageCms.PyCMSError, ValueError, OSError):
        return None


def checked_profile(
    profile_data: bytes | None, space: str
) -> tuple[bytes | None, tuple[Loss, ...]]:
    """Check an embedded profile, and cut off bytes behind its end.

    Args:
        profile_data: ICC profile, or None.
        space: kind of the picture's colours, "RGB" or "GRAY".

    Returns:
        The profile, or None if it is missing, damaged or for other colours; and what is not kept.
    """
    if not profile_data:
        return None, ()
    length_bytes = int.from_bytes(profile_data[:4], "big")
    trimmed = profile_data[:length_bytes]
    own_space = profile_space(trimmed)
    if len(profile_data) < length_bytes:
        return None, (Loss("colour profile", "it is shorter than it declares", is_colour=True),)
    if not own_space:
        return None, (Loss("colour profile", "it is damaged", is_colour=True),)
    if own_space != space:
        lost = Loss("colour profile", "it is for another colour model", is_colour=True)
        return None, () if _is_srgb(trimmed) else (lost,)
    lost = Loss("bytes after the end of the colour profile", "they are not part of it", True)
    return trimmed, (lost,) if len(trimmed) < len(profile_data) else ()


@lru_cache(maxsize=64)
def _is_srgb(profile_data: bytes) -> bool:
    """Whether a profile changes no colour, which its name does not tell ("Linear sRGB")."""
    ramp = np.arange(256, dtype=np.uint8)[:, None, None]
    colours = ramp * np.array([*itertools.product((0, 1), repeat=3)], np.uint8)  # (256, 8, 3)
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_data))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(profile, SRGB, "RGB", "RGB", renderingIntent=intent)
        converted = np.asarray(transform.apply(Image.fromarray(colours)))
    except (ImageCms.PyCMSError, ValueError, OSError):
        return False
    return int(np.abs(converted.astype(np.int16) - colours).max()) <= SRGB_LEVELS


@lru_cache(maxsize=16)  # the photographs of one camera share a profile
def _transform(profile_data: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None if it is for another mode or is sRGB itself."""
    if mode not in ("RGB", "CMYK") or profile_space(profile_data) != mode:
        return None
    if _is_srgb(profile_data):
        return None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_data))
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    return ImageCms.buildTransform(profile, SRGB, mode, "RGB", renderingIntent=intent)


def _vips_image(pixels: np.ndarray, interpretation: str, profile_data: bytes) -> Any:
    """(H, W, C) uint8 or uint16 as a libvips image with a profile."""
    height, width, channels = pixels.shape
    form = FORM_OF_BITS[8 * pixels.itemsize]
    values = np.ascontiguousarray(pixels)
    image = libvips().Image.new_from_memory(values.data, width, height, channels, form)
    image = image.copy(interpretation=interpretation)
    image.set_type(libvips().GValue.blob_type, PROFILE, profile_data)
    return image
