"""Which of its numbers a picture uses, and mapping a part of them onto black to white.

A camera of 12 bits often writes into files of 16, of which it then uses a sixteenth: such a picture
is black to everything that takes 0 for black and 65535 for white. Numbers are those of `Picture`,
from 0 to 255 or 65535.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from cascade.errors import DataError
from cascade.imaging.picture import DTYPE_OF_BITS, Picture

NARROW_SHARE = 1 / 4  # of all numbers; a picture of 14 bits in a file of 16 uses less
ALMOST_NO_CONTRAST = "almost no contrast"  # what messages say of a picture in a narrow range
RARE_SHARE = 0.001  # of the pixels, at each end; dead and hot pixels of a camera are fewer
COUNTED_PIXELS = 2**20


def used_range(picture: Picture) -> tuple[int, int]:
    """The smallest and the largest number of the visible pixels; alpha does not count."""
    values = _visible(picture)
    return int(values.min()), int(values.max())


def common_range(picture: Picture) -> tuple[int, int]:
    """The numbers between which all but the rarest lie; see `RARE_SHARE`.

    Of a large picture, evenly spread pixels are counted.
    """
    values = _visible(picture)
    values = values[:: max(1, values.size // COUNTED_PIXELS)]
    shares = np.cumsum(np.bincount(values)) / values.size
    low, high = np.searchsorted(shares, [RARE_SHARE, 1 - RARE_SHARE], side="right")
    return int(low), min(int(high), int(values.max()))


def outside_share(picture: Picture, low: int, high: int) -> float:
    """Share of the visible numbers below `low` or above `high`, in [0, 1]."""
    values = _visible(picture)
    return float(np.count_nonzero((values < low) | (values > high)) / values.size)


def percentage(share: float) -> str:
    """A share as text, such as `0.031 %` or `50 %`; never 0 or 100 unless it is."""
    percent = min(100 * share, 99.9) if share < 1 else 100
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.3g} %"


def is_narrow(low: int, high: int, bits: int) -> bool:
    """Whether a range is so small that a picture in it has hardly any contrast.

    A range of one number is not: the picture is flat, and nothing can be gained.

    Args:
        low: smallest number.
        high: largest number.
        bits: 8 or 16.
    """
    return 0 < high - low < NARROW_SHARE * (2**bits - 1)


def stretched(picture: Picture, low: int, high: int) -> Picture:
    """Map `low` to black and `high` to white; numbers outside are clipped, alpha is kept.

    Raises:
        DataError: if the picture cannot have such numbers.
    """
    check_range_fits(picture, low, high)
    return _mapped(picture, (low, high), (0, 2**picture.bits - 1))


def unstretched(picture: Picture, low: int, high: int) -> Picture:
    """Map black to `low` and white to `high`, the inverse of `stretched`.

    Raises:
        DataError: if the picture cannot have such numbers.
    """
    check_range_fits(picture, low, high)
    return _mapped(picture, (0, 2**picture.bits - 1), (low, high))


def worked_on_stretched(
    pictures: Sequence[Picture],
    ends: tuple[int, int] | None,
    work: Callable[[Sequence[Picture]], list[Picture]],
) -> list[Picture]:
    """Stretch pictures, work on them, and map the results back to the numbers of the pictures.

    Args:
        pictures: the pictures.
        ends: their numbers that `work` sees as black and white; None leaves all as they are.
        work: makes one result of the same bit depth from each.

    Raises:
        DataError: if the picture cannot have such numbers.
    """
    if ends is None:
        return work(pictures)
    results = work([stretched(picture, *ends) for picture in pictures])
    return [unstretched(result, *ends) for result in results]


def check_range_fits(picture: Picture, low: int, high: int) -> None:
    """Check that a range can be one of a picture's numbers.

    Raises:
        DataError: if it is empty, or the picture's bits do not go so far.
    """
    white = 2**picture.bits - 1
    if not 0 <= low < high <= white:
        raise DataError(
            f"the range {low} to {high} does not fit an image of {picture.bits} bits, whose "
            f"values go from 0 to {white}."
        )


def _mapped(picture: Picture, before: tuple[int, int], after: tuple[int, int]) -> Picture:
    """Map a range of numbers linearly onto another one, by a table of all numbers."""
    numbers = np.arange(2**picture.bits, dtype=np.float64)
    mapped = np.interp(numbers, before, after).round().astype(np.int64)
    table = mapped.astype(np.uint8 if picture.bits == 8 else np.uint16)
    colour = torch.from_numpy(table[picture.colour.numpy()])
    assert colour.dtype == DTYPE_OF_BITS[picture.bits]
    return replace(picture, colour=colour)


def _visible(picture: Picture) -> np.ndarray:
    """The numbers of all pixels that are not fully transparent, or of all if none is visible."""
    values = picture.colour.numpy()
    if picture.alpha is not None:
        visible = picture.alpha.numpy()[0] > 0
        values = values[:, visible] if visible.any() else values
    return values.reshape(-1)
