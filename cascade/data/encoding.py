"""How the images of a data set are resized and encoded before they are written to shards."""

from __future__ import annotations

import io
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cascade.data.examination import EncodedImage
from cascade.data.original import Original
from cascade.errors import DataError
from cascade.imaging.opening import format_of
from cascade.imaging.vips import FORM_OF_BITS, RGB_OF_BITS, libvips
from cascade.imaging.writing import to_pil
from cascade.resizing import resize

ImageFormat = Literal["png", "jpg", "webp"]
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}


class Encoding(NamedTuple):
    """Size, shape and file format of the images in shards.

    Attributes:
        size_px: length of the shorter side; larger images are downscaled with an antialiased
            kernel, smaller ones keep their size. None keeps every size.
        square: whether to crop the central square.
        image_format: format to save in. None copies the file if its pixels stay unchanged, and
            saves a PNG otherwise, in which 16 bits per channel stay 16.
    """

    size_px: int | None = None
    square: bool = False
    image_format: ImageFormat | None = None

    def __call__(self, image: Tensor, data: bytes) -> EncodedImage:
        """Encode an image.

        Args:
            image: (3, H, W) in [-1, 1], as decoded from the file.
            data: content of the file.

        Raises:
            DataError: if the image is too large for the format.
        """
        if self == Encoding():
            return EncodedImage(_suffix_of(data), data)
        if self.square:
            image = _central_square(image)
        if self.size_px is not None:
            image = _downscale(image, self.size_px)
        return _save(image, self.image_format or "png", Original.of(data))


def _suffix_of(data: bytes) -> str:
    """The usual suffix for the format of an image file, whatever its name."""
    return format_of(data, "the image").lower().replace("jpeg", "jpg")


def _central_square(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    short = min(height, width)
    y, x = (height - short) // 2, (width - short) // 2
    return image[:, y : y + short, x : x + short]


def _downscale(image: Tensor, size_px: int) -> Tensor:
    """Bring the shorter side to `size_px`, unless it is smaller already."""
    height, width = image.shape[-2:]
    short = min(height, width)
    if short <= size_px:
        return image
    size = (round(height * size_px / short), round(width * size_px / short))
    return resize(image[None], size, "bicubic")[0]


def _save(image: Tensor, suffix: str, original: Original) -> EncodedImage:
    if suffix == "png" and original.bits == 16:
        return EncodedImage(suffix, _png_of_16_bits(image), original.losses(16))
    file = io.BytesIO()
    try:
        to_pil(image[None])[0].save(file, **SAVE_OPTIONS[suffix])
    except (OSError, ValueError) as error:  # JPEG and WebP limit the side length
        height, width = image.shape[-2:]
        raise DataError(f"{width}x{height} px cannot be saved as {suffix} ({error}).") from error
    return EncodedImage(suffix, file.getvalue(), original.losses(8))


def _png_of_16_bits(image: Tensor) -> bytes:
    """A PNG of 16 bits per channel, which Pillow cannot write in colour."""
    numbers = ((image.clamp(-1, 1) + 1) * (65_535 / 2)).round().permute(1, 2, 0)  # (H, W, 3)
    height, width, bands = numbers.shape
    pixels = numbers.to(torch.uint16).numpy().tobytes()
    vips = libvips().Image.new_from_memory(pixels, width, height, bands, FORM_OF_BITS[16])
    return vips.copy(interpretation=RGB_OF_BITS[16]).pngsave_buffer(compression=6, keep="none")
