"""What training reads of an image: the whole image at the stage's size, and the sample cut from it.

Shapes: C channels, H and W pixels, h and w of a conditioning image.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from cascade.conditioning.batch import Remark
from cascade.space import Size


class TrainingSample(NamedTuple):
    """One image with its seed.

    Attributes:
        image: (C, H, W) in [-1, 1].
        conditions: the image's entry in a batch for each condition of the stage, by its name.
        seed: whole number from which all random draws for the image come.
        broken: unusable images that this one replaces, as `name: reason`.
        remarks: remarks about the image, and about those that were left out before it.
        known: (C, H, W) bool, False at values that the loss leaves out; None if it counts all.
    """

    image: Tensor
    conditions: dict[str, Any]
    seed: int
    broken: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    known: Tensor | None = None


class SizedImage(NamedTuple):
    """A whole image at the stage's size; that of a pair has its own size, which may be larger.

    Attributes:
        image: (C, H, W); uint8 if that loses nothing.
        smaller: conditioning images made from it, by condition name, each (C', h, w); uint8 if
            that loses nothing.
        remarks: remarks about how the image was read.
        known: (C, H, W) bool, False at values that depend on missing ones; None if none does.
    """

    image: Tensor
    smaller: dict[str, Tensor]
    remarks: tuple[Remark, ...] = ()
    known: Tensor | None = None

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def bytes(self) -> int:
        """Memory of all images in bytes."""
        masks = [] if self.known is None else [self.known]
        return sum(each.nbytes for each in (self.image, *self.smaller.values(), *masks))


class UsableImage(NamedTuple):
    """The first usable image at or after a place of an epoch.

    Attributes:
        index: its index in the source.
        sized: the whole image.
        broken: broken images before it, as `name: reason`.
        remarks: remarks about it, and about images before it that were left out.
    """

    index: int
    sized: SizedImage
    broken: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
