"""Small pictures inside a page, as `data:` URLs, so that no file and no address remains."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

from PIL import Image
from torch import Tensor

from cascade.imaging.picture import Picture
from cascade.imaging.reading import on_white
from cascade.imaging.writing import contact_sheet, to_pil

PREVIEW_PX = 640  # longer side
MOST_IMAGES = 16  # of a batch, in one preview


def preview(images: Tensor) -> str:
    """A preview of the images of a step.

    Args:
        images: (B, C, H, W) in [-1, 1].

    Returns:
        A `data:` URL; empty if the images are no pictures.
    """
    count, channels, height, width = images.shape
    if channels not in (1, 3) or min(height, width) < 2:
        return ""
    stride = max(1, max(height, width) // (2 * PREVIEW_PX))  # to convert few pixels of a large one
    small = images[:MOST_IMAGES, :, ::stride, ::stride].float().cpu()
    small = small.expand(-1, 3, -1, -1)
    return data_url(contact_sheet(small) if count > 1 else to_pil(small)[0], PREVIEW_PX)


def picture_url(picture: Picture, longer_px: int) -> tuple[str, tuple[int, int]]:
    """A picture as a `data:` URL, and its width and height there."""
    stride = max(1, max(picture.size) // (2 * longer_px))  # to convert few pixels of a large one
    colour, alpha = picture.colour[:, ::stride, ::stride], picture.alpha
    alpha = None if alpha is None else alpha[:, ::stride, ::stride]
    small = replace(picture, colour=colour.contiguous(), alpha=alpha)
    image = _fitted(to_pil(on_white(small.in_srgb())[None])[0], longer_px)
    return _encoded(image), image.size


def data_url(image: Image.Image, longer_px: int) -> str:
    """A PIL image as a JPEG in a URL, brought to about this size."""
    return _encoded(_fitted(image, longer_px))


def _fitted(image: Image.Image, longer_px: int) -> Image.Image:
    """An image whose longer side is at most this; small ones are enlarged by a whole factor."""
    image.thumbnail((longer_px, longer_px))
    factor = longer_px // max(image.size)
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST) if factor > 1 else image


def _encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
