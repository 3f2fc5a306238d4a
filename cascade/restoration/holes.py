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
WHITES = (255, 65_535)  # of numbers whose range is not known
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

    @property
    def added_px(self) -> tuple[int, int]:
        """By how much height and width grow."""
        return self.top + self.bottom, self.left + self.right

    def padded(self, image: Tensor, value: float | bool) -> Tensor:
        """Add the borders to (C, h, w), filled with a value: (C, H, W)."""
        return F.pad(image, (self.left, self.right, self.top, self.bottom), value=value)


def hole_of(mask: MaskLike, size_px: tuple[int, int]) -> Tensor:
    """Read a mask: what is brighter than middle grey is the hole.

    Args:
        mask: a PIL image or a `Picture` in black and white; or a bool or uint8 array or tensor
            (h, w). What is transparent in it counts as black. A PIL image of 32-bit numbers (mode
            I) that comes from no file must hold 0 and 255 or 0 and 65535 alone.
        size_px: height and width of the picture.

    Returns:
        (H, W) bool, True in the hole.

    Raises:
        ContractError: if it is nothing of the kind, has colours, or has another size.
    """
    if isinstance(mask, Image.Image):
        _check_size((mask.height, mask.width), size_px)
        of_any_range = mask.mode == "I" and mask.format is None
        mask = _of_numbers(mask) if of_any_range else Picture.from_pil(mask, "the mask")
    values = _of_picture(mask) if isinstance(mask, Picture) else _of_array(mask)
    _check_size((values.shape[0], values.shape[1]), size_px)
    return values


def _check_size(mask_px: tuple[int, int], size_px: tuple[int, int]) -> None:
    """Check that a mask has the height and width of the picture."""
    if tuple(mask_px) != tuple(size_px):
        raise ContractError(
            f"the mask has {mask_px[1]}x{mask_px[0]} px, but the image has "
            f"{size_px[1]}x{size_px[0]}; a mask is for images of its own size, so paint one on a "
            "copy of the image."
        )


def grown(hole: Tensor, by_px: int) -> Tensor:
    """Let a hole (H, W) grow by some pixels at all sides."""
    if not by_px:
        return hole
    return F.max_pool2d(hole[None].float(), 2 * by_px + 1, stride=1, padding=by_px)[0] > 0


def hole_in(
    picture: Picture, mask: MaskLike | None, borders: Borders | None, grow_px: int
) -> Tensor:
    """The hole of a picture with its borders, which belong to it.

    Args:
        picture: the picture.
        mask: white where to repaint, see `hole_of`; None for the transparent pixels.
        borders: how far the picture grows; None for not at all.
        grow_px: number of pixels by which the hole grows at all sides.

    Returns:
        (H, W) bool, True in the hole.

    Raises:
        ContractError: if the mask cannot be read, or has another size than the picture.
    """
    hole = transparent_pixels(picture) if mask is None else hole_of(mask, picture.size)
    hole = grown(hole, grow_px)
    return hole if borders is None else borders.padded(hole[None], True)[0]


def transparent_pixels(picture: Picture) -> Tensor:
    """The pixels of a picture that are more transparent than opaque: (H, W) bool."""
    if picture.alpha is None:
        return torch.zeros(picture.size, dtype=torch.bool)
    return picture.alpha[0].int() * 2 < 2**picture.bits


def _of_picture(mask: Picture) -> Tensor:
    values = mask.colour.float() / (2**mask.bits - 1)
    if len(values) == 3 and not (values[:1] == values).all():
        raise ContractError(
            "the mask has colours; it must be black and white, white where to inpaint."
        )
    if mask.alpha is not None:
        values = values * (mask.alpha.float() / (2**mask.bits - 1))
    return values[0] > 0.5


def _of_numbers(mask: Image.Image) -> Tensor:
    """Read an image of 32-bit numbers, which does not say which number is white."""
    values = torch.from_numpy(np.array(mask))
    white = int(values.max())
    if not ((values == 0) | (values == white)).all() or white not in (0, *WHITES):
        raise ContractError(
            "the mask has mode I, which does not say which value is white: expected 0 and 255 or "
            f"0 and 65535 alone, got others from {int(values.min())} to {white}; convert it to "
            "mode L."
        )
    return values > 0


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
    """Whether a hole (H, W) bool holds a square of this side, cut to the picture's own sides."""
    height, width = (min(side_px, side) for side in hole.shape)
    return bool((-F.max_pool2d(-hole[None].float(), (height, width), stride=1)).any())


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
