"""The hole of a picture that is edited: read from a mask, from transparency, or around its borders.

Shapes: C channels, H and W pixels of a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cascade.arguments import shown, whole_number
from cascade.errors import ContractError
from cascade.imaging.picture import Picture

MaskLike = Image.Image | Picture | np.ndarray | Tensor
TYPES = ("bool", "uint8")  # of arrays and tensors
EXPECTED = "a PIL image, a Picture, or a bool or uint8 array or tensor (h, w)"


class Borders(NamedTuple):
    """How far a picture grows at each side, in pixels."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @classmethod
    def of(cls, sides: object) -> Borders:
        """Read four whole numbers in the order of the fields.

        Raises:
            ContractError: if they are others, or all are 0.
        """
        if not isinstance(sides, list | tuple) or len(sides) != 4:
            raise ContractError(
                f"uncrop must be four numbers of pixels, left, top, right, bottom; got "
                f"{shown(sides)}."
            )
        borders = cls(*(whole_number("uncrop", side, low=0) for side in sides))
        if not any(borders):
            raise ContractError("uncrop adds nothing: at least one of its numbers must be above 0.")
        return borders

    def padded(self, image: Tensor, value: float | bool) -> Tensor:
        """Add the borders to (C, h, w), filled with a value: (C, H, W)."""
        return F.pad(image, (self.left, self.right, self.top, self.bottom), value=value)


def hole_of(mask: MaskLike, size_px: tuple[int, int]) -> Tensor:
    """Read a mask: what is brighter than middle grey is the hole.

    Args:
        mask: a PIL image or a `Picture` in black and white; or a bool or uint8 array or tensor
            (h, w). What is transparent in it counts as black.
        size_px: height and width of the picture.

    Returns:
        (H, W) bool, True in the hole.

    Raises:
        ContractError: if it is nothing of the kind, has colours, or has another size.
    """
    if isinstance(mask, Image.Image):
        mask = Picture.from_pil(mask, "the mask")
    values = _of_picture(mask) if isinstance(mask, Picture) else _of_array(mask)
    if tuple(values.shape) != tuple(size_px):
        raise ContractError(
            f"the mask has {values.shape[1]}x{values.shape[0]} px, the picture "
            f"{size_px[1]}x{size_px[0]}; paint it on a copy of the picture."
        )
    return values


def grown(hole: Tensor, by_px: int) -> Tensor:
    """Let a hole (H, W) grow by some pixels at all sides."""
    if not by_px:
        return hole
    return F.max_pool2d(hole[None].float(), 2 * by_px + 1, stride=1, padding=by_px)[0] > 0


def transparent_pixels(picture: Picture) -> Tensor:
    """The pixels of a picture that are more transparent than opaque: (H, W) bool."""
    if picture.alpha is None:
        return torch.zeros(picture.size, dtype=torch.bool)
    return picture.alpha[0].int() * 2 < 2**picture.bits


def _of_picture(mask: Picture) -> Tensor:
    values = mask.colour.float() / (2**mask.bits - 1)
    if len(values) == 3 and not (values[:1] == values).all():
        raise ContractError(
            "the mask has colours; it must be black and white, white where to repaint."
        )
    if mask.alpha is not None:
        values = values * (mask.alpha.float() / (2**mask.bits - 1))
    return values[0] > 0.5


def _of_array(mask: object) -> Tensor:
    kind = getattr(mask, "dtype", None)
    if not isinstance(mask, np.ndarray | Tensor) or str(kind).split(".")[-1] not in TYPES:
        raise ContractError(f"a mask must be {EXPECTED}, got {kind or shown(mask)}.")
    tensor = torch.tensor(mask) if isinstance(mask, np.ndarray) else mask
    if tensor.ndim == 3 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim != 2:
        raise ContractError(f"a mask must be (h, w), got {tuple(tensor.shape)}.")
    tensor = tensor.cpu()
    return tensor if tensor.dtype == torch.bool else tensor > 127


def reduced(hole: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Bring a hole to another size: every pixel that touches it belongs to it.

    Args:
        hole: (H, W) bool.
        size_px: height and width of the result, smaller or larger.
    """
    if tuple(hole.shape) == tuple(size_px):
        return hole
    return F.adaptive_max_pool2d(hole[None].float(), size_px)[0] > 0


def is_wide(hole: Tensor, side_px: int) -> bool:
    """Whether a hole (H, W) bool holds a square of this side."""
    if side_px > min(hole.shape):
        return bool(hole.all())
    return bool((-F.max_pool2d(-hole[None].float(), side_px, stride=1)).any())


def ramp(hole: Tensor, feather_px: int) -> Tensor:
    """How much of the new picture to use: (H, W) in [0, 1].

    It is 0 outside the hole, and rises inside it from its edge to 1 over `feather_px` pixels; with
    0 it is 1 in the whole hole. The edge of the picture is no edge of the hole.
    """
    inside = hole.float()[None]
    total = torch.zeros_like(inside)
    for _ in range(feather_px):
        total += inside
        inside = -F.max_pool2d(-inside, 3, stride=1, padding=1)
    return (total / feather_px if feather_px else inside)[0]
