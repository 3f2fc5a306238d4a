"""Colours of an embedded ICC profile, converted to sRGB by Little CMS."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from cascade.imaging.vips import libvips

MODES_OF_SPACE = {"RGB": ("RGB",), "CMYK": ("CMYK",)}
RAMPS = {8: (np.uint8, "uchar", "b-w"), 16: (np.uint16, "ushort", "grey16")}


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit picture from its embedded profile to sRGB.

    The profile's own rendering intent is used. A profile that is damaged, or is for another kind
    of picture (such as one for print in an RGB file), is ignored, as browsers do.

    Args:
        image: of mode L, RGB or CMYK; others are returned as they are.

    Returns:
        RGB, or L of grey, if it was converted.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image
    if image.mode == "L":
        curve = grey_curve(data, 8)
        return image if curve is None else image.point(curve.tolist())
    try:
        transform = _transform(data, image.mode)
        return image if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image


@lru_cache(maxsize=16)
def grey_curve(profile_data: bytes, bits: Literal[8, 16]) -> np.ndarray | None:
    """What each value of a grey profile is in sRGB, where grey has three equal values.

    Little CMS makes grey RGB with a table of 33 entries, which is up to 10 levels of 255 off; it is
    exact in XYZ of floats, the Y of which is encoded here.

    Args:
        profile_data: of the picture.
        bits: of its values and of those in sRGB.

    Returns:
        (2^bits,) uint8 or uint16; None where the profile is damaged or for another kind of picture.
    """
    if profile_space(profile_data) != "GRAY":
        return None
    vips, (dtype, form, meaning) = libvips(), RAMPS[bits]
    ramp = np.arange(2**bits, dtype=dtype)
    image = vips.Image.new_from_memory(ramp.data, len(ramp), 1, 1, form)
    image = image.copy(interpretation=meaning)
    image.set_type(vips.GValue.blob_type, "icc-profile-data", profile_data)
    try:
        xyz = image.icc_import(embedded=True, pcs="xyz", intent="relative").numpy()
    except vips.Error:
        return None
    linear = xyz[0, :, 1].astype(np.float64).clip(0, 100) / 100
    low, high = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055  # IEC 61966-2-1
    return (np.where(linear <= 0.0031308, low, high) * ramp[-1]).round().clip(0).astype(dtype)


def srgb_colours(colour: np.ndarray, profile_data: bytes) -> np.ndarray | None:
    """Convert colours from their profile to sRGB, of which they keep what it can show.

    Args:
        colour: (3, H, W) uint8 or uint16.
        profile_data: of the picture.

    Returns:
        The same shape and type; None where they are in sRGB already, or the profile is damaged.
    """
    if profile_space(profile_data) != "RGB" or _is_srgb(profile_data):
        return None
    vips, bits = libvips(), 8 * colour.itemsize
    height, width = colour.shape[-2:]
    pixels = np.ascontiguousarray(np.moveaxis(colour, 0, -1))
    form, meaning = ("uchar", "srgb") if bits == 8 else ("ushort", "rgb16")
    image = vips.Image.new_from_memory(pixels.data, width, height, 3, form)
    image = image.copy(interpretation=meaning)
    image.set_type(vips.GValue.blob_type, "icc-profile-data", profile_data)
    try:
        converted = image.icc_transform("srgb", embedded=True, intent="relative", depth=bits)
        return np.moveaxis(converted.numpy(), -1, 0)
    except vips.Error:
        return None


def _is_srgb(profile_data: bytes) -> bool:
    """Whether it says so of itself."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_data))
        return "sRGB" in ImageCms.getProfileDescription(profile)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return False


def profile_space(data: bytes | None) -> str | None:
    """The kind of colours that a profile is for, such as "RGB" or "GRAY"; None if it is damaged."""
    if not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        return getattr(profile.profile, "xcolor_space", "").strip()
    except (ImageCms.PyCMSError, ValueError, OSError):
        return None


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture of mode LAB to RGB in sRGB."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB")
    return transform.apply(image)


@lru_cache(maxsize=16)  # the photographs of one camera share theirs
def _transform(profile_data: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """None where there is nothing to do."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_data))
    space = getattr(profile.profile, "xcolor_space", "").strip()
    if mode not in MODES_OF_SPACE.get(space, ()):
        return None
    if _is_srgb(profile_data):
        return None
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    return ImageCms.buildTransform(profile, _SRGB, mode, "RGB", renderingIntent=intent)


_SRGB = ImageCms.createProfile("sRGB")
