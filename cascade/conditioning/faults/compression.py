"""Compression as JPEG and WebP by Pillow, once or twice.

Differentiable approximations round softly, so traces of what a real file has lost remain, and the
network would learn to read them.

Shapes: B batch, H and W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cascade.conditioning.faults.drawing import PROBABILITY, Uniform, between, check_ranges
from cascade.conditioning.jpeg_quality import NO_LOSS
from cascade.space import Range

BLOCK_PX = 8
FULL_COLOUR_PROBABILITY = 0.3  # of a JPEG; the others store colour at half the resolution
UNKNOWN = math.nan
SUBSAMPLING = {True: 0, False: 2}  # Pillow's names for 4:4:4 and 4:2:0


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How training compresses images.

    Attributes:
        probability: probability in [0, 1] that an image is compressed.
        quality: quality of the file, 1 to 95.
        webp: probability that the file is a WebP instead of a JPEG.
        twice: probability that the image was compressed once before, with another quality, and on
            a grid of blocks that lies elsewhere.

    Raises:
        ContractError: naming the value that is out of range.
    """

    probability: float = 1.0
    quality: Range = (30.0, 95.0)
    webp: float = 0.0
    twice: float = 0.0

    def __post_init__(self) -> None:
        limits = dict.fromkeys(("probability", "webp", "twice"), PROBABILITY)
        check_ranges("degradation.compression", self, limits | {"quality": (1.0, 95.0)})

    def apply(self, images: Tensor, uniform: Uniform) -> tuple[Tensor, float]:
        """Compress images (B, 3, H, W) in [-1, 1] alike.

        Args:
            images: in [-1, 1].
            uniform: nine numbers are taken.

        Returns:
            The images, and the quality of the last JPEG; `NO_LOSS` without compression, `UNKNOWN`
            of a WebP.
        """
        is_compressed, is_twice = (next(uniform) < p for p in (self.probability, self.twice))
        shift = int(next(uniform) * BLOCK_PX), int(next(uniform) * BLOCK_PX)
        qualities = [round(between(self.quality, next(uniform))) for _ in range(2)]
        are_webp = [next(uniform) < self.webp for _ in range(2)]
        is_full = next(uniform) < FULL_COLOUR_PROBABILITY
        if not is_compressed:
            return images, NO_LOSS
        if is_twice:
            images = _shifted(images, shift, qualities[1], is_webp=are_webp[1], is_full=is_full)
        images = _saved(images, qualities[0], is_webp=are_webp[0], is_full=is_full)
        return images, UNKNOWN if are_webp[0] else float(qualities[0])


def _shifted(
    images: Tensor, shift: tuple[int, int], quality: int, *, is_webp: bool, is_full: bool
) -> Tensor:
    """Save images in blocks that begin so many rows and columns outside of them."""
    rows, columns = (min(n, side - 1) for n, side in zip(shift, images.shape[-2:], strict=True))
    padded = F.pad(images, (columns, 0, rows, 0), mode="reflect")
    saved = _saved(padded, quality, is_webp=is_webp, is_full=is_full)
    return saved[..., rows:, columns:]


def _saved(images: Tensor, quality: int, *, is_webp: bool, is_full: bool) -> Tensor:
    return webp(images, quality) if is_webp else jpeg(images, quality, full_colour=is_full)


def jpeg(images: Tensor, quality: int, *, full_colour: bool = False) -> Tensor:
    """Encode images as JPEG and decode them.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        quality: quality of the file, 1 to 95.
        full_colour: whether colour keeps its resolution, which else is halved.

    Returns:
        (B, 3, H, W) in [-1, 1], with the 256 values of an 8-bit file.
    """
    return _through_file(images, "JPEG", quality=quality, subsampling=SUBSAMPLING[full_colour])


def webp(images: Tensor, quality: int) -> Tensor:
    """Encode images as WebP and decode them; shapes and quality are those of `jpeg`."""
    return _through_file(images, "WEBP", quality=quality, method=0)  # the fastest


def _through_file(images: Tensor, kind: Literal["JPEG", "WEBP"], **options: Any) -> Tensor:
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    decoded = [_decoded(each, kind, options) for each in pixels.permute(0, 2, 3, 1).numpy()]
    return torch.stack(decoded).permute(0, 3, 1, 2).to(images) / 127.5 - 1


def _decoded(pixels: np.ndarray, kind: str, options: Mapping[str, Any]) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return torch.from_numpy(np.array(Image.open(file, formats=(kind,))))
