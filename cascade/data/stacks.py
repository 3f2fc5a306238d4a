"""The images of stacks and volumes, of which a file holds several."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

from cascade.data.source import ImageSource
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.reading import count_rasters

SLICE = re.compile(r"(.+)#\d{4,}(-\d+)?")  # keys of images of a file


def volume_of(key: str) -> str | None:
    """The key of the file that an image was one of several of: `a/scan#0003` -> `a/scan`."""
    match = SLICE.fullmatch(key)
    return match and match[1]


class StackSource(ImageSource):
    """A source whose files may hold several images: pages, frames, slices, or items of an array.

    Each image is one of the source, called `NAME#3`. A file that cannot be read counts as one.

    Args:
        source: the files.
        layout: how a file is divided into images.
    """

    def __init__(self, source: ImageSource, layout: Layout) -> None:
        self.source = source
        self.layout = layout
        self.notes = source.notes
        self.check_words = source.check_words
        counts = [_count(source, index, layout) for index in range(len(source))]
        self._places = [(i, n) for i, count in enumerate(counts) for n in range(count)]
        self._is_stack = [count > 1 for count in counts]

    def __len__(self) -> int:
        return len(self._places)

    def key(self, index: int) -> str:
        place, number = self._places[index]
        ending = f"#{number + 1:04d}" if self._is_stack[place] else ""
        return self.source.key(place) + ending

    def name(self, index: int) -> str:
        place, number = self._places[index]
        ending = f"#{number + 1}" if self._is_stack[place] else ""
        return self.source.name(place) + ending

    def read(self, index: int) -> bytes:
        return self.source.read(self._places[index][0])

    def open(self, index: int) -> BinaryIO:
        return self.source.open(self._places[index][0])

    def number_in_file(self, index: int) -> int:
        return self._places[index][1]

    def volume(self, index: int) -> str | None:
        return self.source.volume(self._places[index][0])

    def size_bytes(self, index: int) -> int | None:
        return self.source.size_bytes(self._places[index][0])

    def labels(self, index: int) -> dict[str, str]:
        return self.source.labels(self._places[index][0])

    def other_values(self, index: int) -> dict[str, Any]:
        return self.source.other_values(self._places[index][0])


def _count(source: ImageSource, index: int, layout: Layout) -> int:
    """The number of images in a file; 1 if it cannot be read, which is reported when it is used."""
    try:
        with source.open(index) as file:
            return count_rasters(file, source.name(index), layout)
    except DataError:
        return 1
