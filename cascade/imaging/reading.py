"""From an image file to an RGB tensor, for training and conditioning.

Files are read as those to restore are (`picture_reading.py`), and then made alike:

- Grey, one-bit and palette pictures become RGB.
- An embedded ICC profile is applied, so that all pictures are sRGB; one that is damaged or for
  another kind of picture is ignored. CMYK without a profile is converted by its plain formula.
- EXIF orientation is applied; a picture whose EXIF is damaged is read as one without.
- Transparent pictures are laid on white, after the conversion to sRGB.
- 16 bits keep all their steps here; training holds its images in 8 bits.
- Of an animation or a file with several pages, the first picture is read.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.imaging.colour_profiles import to_srgb
from cascade.imaging.opening import check_range, read_bytes
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import Truncated, decode_picture


def read_image(path: Path, *, truncated: Truncated = "refuse") -> Tensor:
    """Read an image file: (3, H, W) float32 in [-1, 1]; see `decode_image`.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    return decode_image(read_bytes(path), str(path), truncated=truncated)


def decode_image(data: bytes, name: str, *, truncated: Truncated = "refuse") -> Tensor:
    """Decode an image file.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.
        truncated: "keep" takes a JPEG whose end is missing as far as it goes.

    Returns:
        (3, H, W) float32 in [-1, 1].

    Raises:
        DataError: if it is not an image, is damaged, or is too large.
    """
    return on_white(decode_picture(data, name, truncated=truncated).in_srgb())


def on_white(picture: Picture) -> Tensor:
    """Lay a picture in sRGB on white: (3, H, W) float32 in [-1, 1]."""
    half = (2**picture.bits - 1) / 2
    image = picture.colour.float() / half - 1
    if picture.alpha is not None:
        image = 1 + (image - 1) * (picture.alpha.float() / (2 * half))
    return image.expand(3, -1, -1).contiguous()


def pil_to_tensor(image: Image.Image, name: str = "the image") -> Tensor:
    """Convert a PIL image to RGB in sRGB, laid on white, as it lies.

    Args:
        image: a PIL image of any mode whose range is known.
        name: for error messages.

    Returns:
        (3, H, W) float32 in [-1, 1].

    Raises:
        DataError: if the image has 32 bits per pixel.
    """
    check_range(image, name)
    if image.mode.startswith("I"):  # 16-bit grey
        grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return (grey.clamp(0, 1) * 2 - 1).expand(3, -1, -1).contiguous()
    pixels = torch.from_numpy(np.array(to_rgb(image)))  # (H, W, 3)
    return pixels.permute(2, 0, 1).float() / 127.5 - 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit PIL image to RGB in sRGB, laid on white where it is transparent."""
    alpha = None
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("LA" if image.mode in ("L", "LA") else "RGBA")
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
