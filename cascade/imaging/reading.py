"""From an image file to an RGB tensor, for training and conditioning.

Training sees every picture the same way, so this reader drops what `picture_reading.py` keeps:

- Grey, one-bit and palette pictures become RGB.
- An embedded ICC profile is applied, so that all pictures are sRGB; one that is damaged or for
  another kind of picture is ignored. CMYK without a profile is converted by its plain formula.
- EXIF orientation is applied; a picture whose EXIF is damaged is read as one without.
- Transparent pictures are laid on white, after the conversion to sRGB.
- Grey of 16 bits keeps all its steps and its profile is ignored. Colour of 16 bits is read in its
  upper 8 bits, since Pillow has no more and training images are held in 8 bits.
- Of an animation or a file with several pages, the first picture is read.

Formats, limits and damaged files: see `opening.py`.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.imaging.colour_profiles import to_srgb
from cascade.imaging.opening import check_range, opened_image, read_bytes
from cascade.imaging.orientation import orientation_of, upright
from cascade.imaging.picture_reading import Truncated


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
    with opened_image(data, name) as image:
        image.load()
        return upright(pil_to_tensor(image, name), orientation_of(image))


def pil_to_tensor(image: Image.Image, name: str = "the image") -> Tensor:
    """Convert a PIL image by the rules above, its orientation aside.

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
