"""Origin: what the file of an image of bands says about it besides its numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from numpy.typing import DTypeLike


class Origin(ABC):
    """What belongs to an image in its file: place, size of its pixels, kind of numbers.

    Attributes:
        format: of the file: TIFF, DICOM, NIfTI or numpy.
        is_generated: whether the file says that a model drew it from noise.
    """

    format: str
    is_generated: bool

    @abstractmethod
    def scaled(self, factor_y: float, factor_x: float) -> Origin:
        """Bring the size of the pixels up to date; the bounds of the image stay.

        Args:
            factor_y: height of the new image in pixels, divided by that of the old one.
            factor_x: the same for the width.
        """

    @abstractmethod
    def for_numbers(self, dtype: DTypeLike, *, same_bands: bool = True) -> Origin:
        """What stays true of an image of other numbers at the same place.

        Args:
            dtype: the type that these numbers are stored in.
            same_bands: whether its bands stand for the same things.
        """
