"""SeriesSheet: the contact sheet of a series of pictures, which holds small copies of them.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from typing import final

from PIL import Image
from torch import Tensor

from cascade.imaging.rasters.showing import as_rgb, with_scale_bar
from cascade.imaging.writing import contact_sheet, to_pil
from cascade.space import Space

MOST_PICTURES = 64
MOST_PX = 4096  # of a side, so that a sheet of 64 is no larger than one of 16
GAP_PX = 2  # between pictures


@final
class SeriesSheet:
    """The first pictures of a series, as square a grid as possible.

    Args:
        total: number of pictures of the series.
        space: space of the pictures.
    """

    def __init__(self, total: int, space: Space) -> None:
        self._space = space
        self._count = min(total, MOST_PICTURES)
        columns = math.ceil(math.sqrt(self._count))
        self._cell_px = max(1, (MOST_PX - GAP_PX * (columns - 1)) // columns)
        self._pictures: list[Image.Image] = []

    @property
    def lacks(self) -> int:
        """How many of the next pictures it takes."""
        return self._count - len(self._pictures)

    @property
    def count(self) -> int:
        """How many pictures it has."""
        return len(self._pictures)

    def add(self, images: Tensor) -> None:
        """Add the next pictures, (B, C, H, W) in [-1, 1], as far as it has places for them."""
        for image in images[: self.lacks]:  # one by one, because they may be large
            (picture,) = to_pil(as_rgb(image[None], self._space))
            picture.thumbnail((self._cell_px, self._cell_px), Image.Resampling.LANCZOS)
            self._pictures.append(picture)

    def picture(self) -> Image.Image:
        """The whole sheet."""
        return with_scale_bar(contact_sheet(self._pictures, gap_px=GAP_PX), self._space)
