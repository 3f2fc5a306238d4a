"""The images of stacks and volumes: of one file that holds several, or of a file for each slice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from cascade.data.source import ImageSource
from cascade.errors import DataError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster_file import SeriesPlace
from cascade.imaging.rasters.reading import open_rasters

SLICE = re.compile(r"(.+)#\d{4,}(-\d+)?")  # keys of images of a volume


def volume_of(key: str) -> str | None:
    """The key of the volume that an image was one of several of: `a/scan#0003` -> `a/scan`."""
    match = SLICE.fullmatch(key)
    return match and match[1]


class _Image(NamedTuple):
    """An image of a source of files.

    Attributes:
        file: index of its file.
        number: which image of the file it is, counted from 0.
        key: its key, if it is one of several of a volume; empty for that of the file.
        ending: what its name has after that of the file.
        series: name of the series of files that it is a slice of; None for none.
    """

    file: int
    number: int = 0
    key: str = ""
    ending: str = ""
    series: str | None = None


class StackSource(ImageSource):
    """A source whose files may hold several images, or be slices of one volume.

    Pages, frames, slices and items of an array of one file are called `NAME#3`. The files of one
    folder that are slices of the same series (DICOM) come in the order of their positions, at the
    place of the first of their names, and their keys count from it: `NAME#0003`. A file that cannot
    be read counts as one image.

    Args:
        source: the files.
        layout: how a file is divided into images.
        joined_by_name: whether keys are those of the files, also of slices of a series, because
            images of another source are found by them. They still know their series.
    """

    def __init__(
        self, source: ImageSource, layout: Layout, *, joined_by_name: bool = False
    ) -> None:
        self.source = source
        self.layout = layout
        self.notes = source.notes
        self.check_words = source.check_words
        heads = [_head(source, index, layout) for index in range(len(source))]
        if joined_by_name:
            self._images = [
                image for index in range(len(source)) for image in self._of(index, heads)
            ]
        else:
            self._images = list(self._in_order(heads))

    def _in_order(self, heads: Sequence[_Head]) -> Iterator[_Image]:
        """All images, those of a series where its first file is."""
        folders: dict[tuple[PurePosixPath, str], list[int]] = {}
        for index, (_, place) in enumerate(heads):
            if place is not None:
                folder = PurePosixPath(self.source.key(index)).parent
                folders.setdefault((folder, place.series), []).append(index)
        series = {files[0]: files for files in folders.values() if len(files) > 1}
        others = {index for files in series.values() for index in files[1:]}
        for index in range(len(heads)):
            if index in series:
                key = self.source.key(index)
                files = sorted(series[index], key=lambda each: (heads[each].place, each))
                for number, file in enumerate(files):
                    (image,) = self._of(file, heads)
                    yield image._replace(key=f"{key}#{number + 1:04d}")
            elif index not in others:
                yield from self._of(index, heads)

    def _of(self, index: int, heads: Sequence[_Head]) -> Iterator[_Image]:
        """The images of a file."""
        count, place = heads[index]
        if count == 1:
            yield _Image(index, series=None if place is None else place.series)
            return
        key = self.source.key(index)
        for number in range(count):
            yield _Image(index, number, f"{key}#{number + 1:04d}", f"#{number + 1}")

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        image = self._images[index]
        return image.key or self.source.key(image.file)

    def name(self, index: int) -> str:
        image = self._images[index]
        return self.source.name(image.file) + image.ending

    def read(self, index: int) -> bytes:
        return self.source.read(self._images[index].file)

    def open(self, index: int) -> BinaryIO:
        return self.source.open(self._images[index].file)

    def number_in_file(self, index: int) -> int:
        return self._images[index].number

    def volume(self, index: int) -> str | None:
        image = self._images[index]
        return image.series or self.source.volume(image.file)

    def size_bytes(self, index: int) -> int | None:
        return self.source.size_bytes(self._images[index].file)

    def labels(self, index: int) -> dict[str, str]:
        return self.source.labels(self._images[index].file)

    def other_values(self, index: int) -> dict[str, Any]:
        return self.source.other_values(self._images[index].file)


class _Head(NamedTuple):
    """The number of images in a file, and which slice it is of a series of files."""

    count: int
    place: SeriesPlace | None


def _head(source: ImageSource, index: int, layout: Layout) -> _Head:
    """The head of a file; one that cannot be read is reported when it is used."""
    try:
        with source.open(index) as stream:
            file = open_rasters(stream, source.name(index), layout)
            return _Head(len(file), file.place)
    except DataError:
        return _Head(1, None)
