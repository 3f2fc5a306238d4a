"""How training images are decoded, and what is remarked about them.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from cascade.conditioning.batch import Remark
from cascade.errors import DataError
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import Truncated, TruncatedError, decode_picture
from cascade.imaging.reading import on_white
from cascade.imaging.value_range import check_range_fits, outside_share, percentage, stretched

TooSmall = Literal["error", "skip", "enlarge"]  # what happens to images smaller than the stage
Outside = Literal["clip", "error"]  # what happens to numbers outside of the range
ValueRange = tuple[int, int]  # numbers that become black and white

LEFT_OUT = "too small, left out"
ENLARGED = "too small, enlarged"
TRUNCATED = "truncated, kept"
CLIPPED = "with values outside the range, which are clipped"
MASKED = "with missing values, which are left out of the loss"


class TooSmallError(DataError):
    """An image is smaller than the stage, which is no damage."""


class DecodedImage(NamedTuple):
    """An image for training.

    Attributes:
        image: (C, H, W) in [-1, 1]; uint8 if that loses nothing.
        remarks: remarks about how it was read.
        known: (C, H, W) bool, False at missing values, which are filled; None if none is missing.
    """

    image: Tensor
    remarks: tuple[Remark, ...] = ()
    known: Tensor | None = None


class Decoding(NamedTuple):
    """How image files become images for training.

    Attributes:
        range: the numbers that become black and white, from 0 to 255 or 65535; None for all that
            the picture's bits allow.
        truncated: what happens to JPEG files whose end is missing.
        outside: what happens to numbers outside of the range.
    """

    range: ValueRange | None = None
    truncated: Truncated = "refuse"
    outside: Outside = "clip"

    @property
    def check_words(self) -> list[str]:
        """The options of `cascade data check` that decode files in the same way."""
        ends = [] if self.range is None else ["--range", *map(str, self.range)]
        return ends + ([] if self.truncated == "refuse" else ["--truncated", self.truncated])

    def picture(self, data: bytes, name: str) -> Picture:
        """Decode an image file as it is stored, its range of numbers included.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            return decode_picture(data, name, truncated=self.truncated)
        except TruncatedError as error:
            raise DataError(
                f"{name}: its end is missing; truncated=keep reads it as far as it goes."
            ) from error

    def load(self, data: bytes, name: str, number: int) -> DecodedImage:
        """The first image of a file, (3, H, W) in [-1, 1], and remarks about it.

        Raises:
            DataError: as `picture` and `image`.
        """
        picture = self.picture(data, name)
        return DecodedImage(self.image(picture, name), self.remarks(picture, name))

    def image(self, picture: Picture, name: str) -> Tensor:
        """Convert a decoded file to (3, H, W) float32 in [-1, 1], in sRGB and laid on white.

        Raises:
            DataError: if it cannot have numbers of the range.
        """
        self.check(picture, name)
        if self.range is not None:
            picture = stretched(picture, *self.range)
        return on_white(picture.in_srgb())

    def check(self, picture: Picture, name: str) -> None:
        """Check that a picture can have numbers of the range, and has no others if it must not.

        Raises:
            DataError: naming it, if it does not fit.
        """
        if self.range is None:
            return
        try:
            check_range_fits(picture, *self.range)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        share = outside_share(picture, *self.range) if self.outside == "error" else 0
        if share > 0:
            low, high = self.range
            raise DataError(
                f"{name}: {percentage(share)} of its values lie outside {low} to {high}; widen "
                "the range, or set outside=clip."
            )

    def remarks(self, picture: Picture, name: str) -> tuple[Remark, ...]:
        """What a user should know about how a file was decoded."""
        remarks = []
        if picture.is_truncated:
            remarks.append(Remark(TRUNCATED, f"{name}: its end is missing and became grey."))
        if self.range is not None and (share := outside_share(picture, *self.range)) > 0:
            text = f"{name}: {percentage(share)} of its values."
            remarks.append(Remark(CLIPPED, text))
        return tuple(remarks)
