"""RasterFile: an opened file of images of bands, which unpacks what they share once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from cascade.errors import DataError
from cascade.imaging.rasters.raster import Raster

MAX_BYTES = 4 * 2**30  # of the unpacked numbers of a file


class SeriesPlace(NamedTuple):
    """Which slice a file is, of a volume that has a file for each slice.

    Attributes:
        series: name of the volume, which no other volume has.
        orientation: direction of the rows and the columns of the slice; empty if unknown.
        position_mm: place of the slice along the normal of its plane.
        number: number of the slice in the series, which decides where the position is the same.
    """

    series: str
    orientation: tuple[float, ...] = ()
    position_mm: float = 0.0
    number: int = 0


class RasterFile(ABC):
    """An opened file of one or more images.

    Args:
        name: the file's name, for error messages.

    Attributes:
        place: which slice it is of a volume of several files; None if it is of none.
    """

    unit: ClassVar[str] = "image"  # what the images are called in messages
    place: SeriesPlace | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def __len__(self) -> int:
        """Number of images, by the head of the file where the format allows."""

    @abstractmethod
    def decoded(self, number: int) -> Raster:
        """Decode an image that the file has, counted from 0."""

    def image(self, number: int) -> Raster:
        """Decode an image.

        Args:
            number: which one, counted from 0.

        Raises:
            DataError: if it is damaged, has numbers of a type that is not read, or the file has no
                such image.
        """
        if not 0 <= number < len(self):
            raise DataError(
                f"{self.name}: has {len(self)} {self.unit}s; there is no {self.unit} {number + 1}."
            )
        try:
            return self.decoded(number)
        except DataError as error:
            is_named = str(error).startswith(self.name)
            raise error if is_named else DataError(f"{self.name}: {error}") from error


def too_large(name: str) -> DataError:
    """The error for a file of more than `MAX_BYTES`."""
    return DataError(f"{name}: has more than {MAX_BYTES // 2**30} GiB of values; split it.")
