"""Colours of an embedded ICC profile, converted to sRGB by Little CMS."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image, ImageCms

MODES_OF_SPACE = {"RGB": ("RGB",), "GRAY": ("L",), "CMYK": ("CMYK",)}


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit picture from its embedded profile to sRGB.

    The profile's own rendering intent is used. A profile that is damaged, or is for another kind
    of picture (such as one for print in an RGB file), is ignored, as browsers do.

    Args:
        image: of mode L, RGB or CMYK; others are returned as they are.

    Returns:
        RGB if it was converted.
    """
    data = image.info.get("icc_profile")
    if not data:
        return image
    try:
        transform = _transform(data, image.mode)
        return image if transform is None else transform.apply(image)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image


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
    if "sRGB" in ImageCms.getProfileDescription(profile):
        return None
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    return ImageCms.buildTransform(profile, _SRGB, mode, "RGB", renderingIntent=intent)


_SRGB = ImageCms.createProfile("sRGB")
