"""From the bytes of an image file to a tensor, by stated rules.

- EXIF orientation is applied.
- Transparent pictures are laid on white.
- Grey, palette and CMYK pictures become RGB; 16-bit grey keeps its range.
- Files that decode to more than `MAX_PIXELS` are refused before they are decoded.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cascade.errors import DataError

MAX_PIXELS = 256 * 1024 * 1024
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # none that runs a program
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f"{name}: {image.width}x{image.height} px is more than the {MAX_PIXELS} "
                        "pixels allowed; make it smaller."
                    )
                image.load()
                return pil_to_tensor(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except UnidentifiedImageError as error:  # its own words hold an address in memory
        raise DataError(
            f"{name}: not a readable image (none of {', '.join(IMAGE_FORMATS)})."
        ) from error
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise DataError(f"{name}: not a readable image ({error}).") from error


def read_image(path: Path) -> Tensor:
    """Read an image file: (3, H, W) float32 in [-1, 1]; see `decode_image`.

    Raises:
        DataError: if the file cannot be read or is not an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return decode_image(data, str(path))


def pil_to_tensor(image: Image.Image) -> Tensor:
    """Pixels of a PIL image by the rules above: (3, H, W) float32 in [-1, 1]."""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535)
        return (grey.clamp(0, 1) * 2 - 1).expand(3, -1, -1).contiguous()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    pixels = torch.from_numpy(np.array(image.convert("RGB")))  # (H, W, 3)
    return pixels.permute(2, 0, 1).float() / 127.5 - 1
