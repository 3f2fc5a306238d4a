"""Random crops, mirrored and rotated, of an image and its conditioning images alike.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cascade.arguments import flag, shown, whole_number
from cascade.contract import Contract
from cascade.errors import DataError

Axis = Literal["x", "y"]
DIMENSIONS: dict[Axis, int] = {"x": -1, "y": -2}
AXES = ([], ["x"], ["y"], ["x", "y"])


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which parts of an image are cut out, and how they are turned.

    Attributes:
        crop_px: side in pixels of the square that is cut out at random; None for the whole image.
        flip: axes along which half of the images are mirrored: `x` swaps left and right, `y` top
            and bottom.
        rotate90: whether to rotate images by 0, 90, 180 or 270 degrees, each equally often.

    Raises:
        ContractError: if `crop_px` is no whole number above 0, or `rotate90` no truth value.
        DataError: if an axis is unknown or named twice.
    """

    crop_px: int | None = None
    flip: tuple[Axis, ...] = ("x",)
    rotate90: bool = False

    def __post_init__(self) -> None:
        if self.crop_px is not None:
            object.__setattr__(self, "crop_px", whole_number("crop_px", self.crop_px, low=1))
        object.__setattr__(self, "rotate90", flag("rotate90", self.rotate90))
        if not isinstance(self.flip, list | tuple) or sorted(map(str, self.flip)) not in AXES:
            raise DataError(
                f"flip must be a list of x, y, both or neither, got {shown(self.flip)}."
            )
        object.__setattr__(self, "flip", tuple(self.flip))

    def check(self, contract: Contract, *, encoded: str = "") -> None:
        """Check that it fits a stage's images and its conditioning images.

        Args:
            contract: contract of the stage.
            encoded: `latents` or `embeddings` if an encoder made them of the whole pictures, so
                that the pictures must stay as they are.

        Raises:
            DataError: if the crop is too large or not a multiple of the scale, or images to rotate
                are not square.
        """
        is_whole = self.crop_px is None and not self.flip and not self.rotate90
        if (encoded or contract.space.kind == "latents") and not is_whole:
            kind = encoded or contract.space.kind
            raise DataError(
                f"the {kind} of images are not those of their crops and mirror images; set flip "
                "to [], rotate90 to false and crop_px to null."
            )
        smallest_px = min(contract.space.size)
        crop_px = self.crop_px
        if crop_px is not None and (crop_px > smallest_px or crop_px % contract.grid_px):
            raise DataError(
                f"crop_px must be at most the stage's {smallest_px} px and a multiple of its "
                f"scale {contract.grid_px}, got {crop_px}."
            )
        height, width = contract.space.size
        if self.rotate90 and crop_px is None and height != width:
            raise DataError(
                f"rotate90 needs square images, but the stage has {contract.space.size_text}; set "
                "crop_px to train on squares."
            )

    def draw(
        self, size: tuple[int, int], step_px: int, seed: int, window: tuple[int, int] | None = None
    ) -> Cut:
        """Draw the part of an image to use.

        Args:
            size: height and width of the whole image in pixels.
            step_px: the part begins at a multiple of this, so that it covers whole pixels of the
                smallest conditioning image.
            seed: whole number that decides all draws.
            window: height and width of the part if `crop_px` is None; default: the whole image.
        """
        generator = torch.Generator().manual_seed(seed)
        whole = window or size
        part = (self.crop_px or whole[0], self.crop_px or whole[1])
        spare = [side - cut for side, cut in zip(size, part, strict=True)]
        y, x = (
            int(torch.randint(free // step_px + 1, (1,), generator=generator)) * step_px
            for free in spare
        )
        mirrored = [
            DIMENSIONS[axis]
            for axis in DIMENSIONS
            if axis in self.flip and bool(torch.rand((), generator=generator) < 0.5)
        ]
        turns = int(torch.randint(4, (1,), generator=generator)) if self.rotate90 else 0
        return Cut(size, (y, x), part, tuple(mirrored), turns)


def middle_cut(size: tuple[int, int], window: tuple[int, int], step_px: int) -> Cut:
    """The middle part of an image, not turned.

    Args:
        size: height and width of the whole image in pixels.
        window: height and width of the part.
        step_px: the part begins at a multiple of this.
    """
    y, x = ((side - cut) // 2 // step_px * step_px for side, cut in zip(size, window, strict=True))
    return Cut(size, (y, x), window, (), 0)


class Cut(NamedTuple):
    """A part of an image, and how it is turned.

    Attributes:
        whole: (H, W) of the image that it is cut from.
        offset: row and column where it begins.
        size: its height and width.
        mirrored: dimensions that are reversed.
        turns: number of quarter turns after that, counterclockwise.
    """

    whole: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]
    mirrored: tuple[int, ...]
    turns: int

    def __call__(self, image: Tensor) -> Tensor:
        """Cut the same part out of the image or of one made from it (C, h, w), smaller or not."""
        scale = self.whole[0] // image.shape[-2]
        y, x = (each // scale for each in self.offset)
        rows, columns = (each // scale for each in self.size)
        part = image[:, y : y + rows, x : x + columns]
        part = part.flip(self.mirrored) if self.mirrored else part
        return part.rot90(self.turns, (-2, -1)) if self.turns else part

    def of_all(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut the same part out of several images, by name."""
        return {name: self(image) for name, image in images.items()}
