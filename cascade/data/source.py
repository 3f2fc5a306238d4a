"""ImageSource: the interface of every source of training images."""

from __future__ import annotations

import io
import os
import shlex
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cascade.data.notes import NOT_SELECTED, SourceFault, SourceNotes
from cascade.errors import DataError, nearest

MAX_MEMBER_BYTES = 256 * 1024 * 1024  # per file in a source
MAX_LABELS_BYTES = 1024 * 1024  # per label file in a shard


def check_text(name: str, path: str) -> None:
    """Check that a file name is valid text, because keys, labels and messages are made of it.

    Args:
        name: the file name.
        path: the whole path, for the message.

    Raises:
        DataError: if the name is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        readable = path.encode(errors="replace").decode()
        raise DataError(f"{readable}: its name is not UTF-8; rename it.") from error


def read_file(path: Path, name: str) -> bytes:
    """Read a file of a source.

    Args:
        path: the file.
        name: its name for messages.

    Raises:
        DataError: if the file is missing, not a regular file, too large, or cannot be read.
    """
    try:
        if path.is_symlink() and not path.exists():
            raise DataError(
                f"{name}: cannot be read (a link to {os.readlink(path)}, where nothing is)."
            )
        status = path.stat()
        _check_status(status, name)
        return path.read_bytes()
    except DataError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', error)}).") from error


def _check_status(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):  # a device would never end
        raise DataError(f"{name}: not a regular file.")
    if status.st_size > MAX_MEMBER_BYTES:
        raise DataError(
            f"{name}: has {status.st_size} bytes; at most {MAX_MEMBER_BYTES} are allowed."
        )


class LabelSurvey(NamedTuple):
    """Which labels the images of a source have.

    Attributes:
        names: class names by label field, sorted.
        unlabelled: the label fields that an image lacks, by its name; images with all are left out.
    """

    names: dict[str, list[str]]
    unlabelled: dict[str, list[str]]


class ImageSource(ABC):
    """Encoded images with their labels, read by index.

    Attributes:
        partners: for pairs, the inputs from which a stage makes these images; None for no pairs.
        notes: labels out of step and files that are not images, which the source noticed while it
            listed its images; empty unless a source sets them.
        check_words: the words of the command that lists everything about the images; none for
            images that are not in files.
    """

    partners: Partners | None = None
    notes: SourceNotes = SourceNotes()
    check_words: Sequence[str] = ("cascade", "data", "check", "PATH")

    def check_command(self, *words: str, size_px: int | None = None) -> str:
        """The command that lists everything about the images, to be pasted into a shell; or empty.

        Args:
            words: further words.
            size_px: shorter side below which images are listed as too small; None for any.
        """
        size = [] if size_px is None else ["--size", str(size_px)]
        return shlex.join([*self.check_words, *size, *words]) if self.check_words else ""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def key(self, index: int) -> str:
        """The image's path within the source, without suffix, such as `cat/1`."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The image's name for messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Read the image file.

        Raises:
            DataError: if it cannot be read.
        """

    def number_in_file(self, index: int) -> int:
        """Which image of its file it is, counted from 0: of a stack or a volume."""
        return 0

    def volume(self, index: int) -> str | None:
        """The key of the stack or volume from which `data build` took it; None if it was none."""
        return None

    def open(self, index: int) -> BinaryIO:
        """Open the image file, to read its head.

        Raises:
            DataError: if it cannot be read.
        """
        return io.BytesIO(self.read(index))

    @abstractmethod
    def labels(self, index: int) -> dict[str, str]:
        """The image's labels by field, such as `{"class": "cat-face"}`.

        Raises:
            DataError: if a file of labels cannot be read.
        """

    def other_values(self, index: int) -> dict[str, Any]:
        """What a file of labels holds besides text, such as numbers, by name.

        It is of no use in training; shards that are built from the source keep it.
        """
        return {}

    def size_bytes(self, index: int) -> int | None:
        """Size of the image file in bytes; None if the source does not know it without reading."""
        return None

    def readable_labels(self, index: int) -> dict[str, str]:
        """The image's labels, or none if a file of labels is broken.

        Use it for counting; the broken file is reported when the image itself is used.
        """
        try:
            return self.labels(index)
        except DataError:
            return {}

    def vocabulary(self, fields: Sequence[str]) -> dict[str, list[str]]:
        """Collect the class names of each label field, sorted.

        Raises:
            DataError: if no image has such a field.
        """
        return self.survey(fields).names

    def survey(self, fields: Sequence[str]) -> LabelSurvey:
        """Read the labels of all images once.

        Args:
            fields: the label fields to look at.

        Raises:
            DataError: if no image has such a field.
        """
        names: dict[str, set[str]] = {field: set() for field in fields}
        unlabelled: dict[str, list[str]] = {}
        for index in range(len(self)):
            labels = self.readable_labels(index)
            missing = [field for field in fields if field not in labels]
            if missing:
                unlabelled[self.name(index)] = missing
            for field in fields:
                names[field].update([labels[field]] if field in labels else [])
        for field in fields:
            if not names[field]:
                raise DataError(
                    f"no image has a label {field!r}; put images into one folder per class, or "
                    "name a field of the shards' JSON, of metadata.csv or of a name pattern."
                    f"{self.notes.unread_tables}"
                )
        return LabelSurvey({field: sorted(names[field]) for field in fields}, unlabelled)


class Partners(NamedTuple):
    """The inputs of pairs: for each image of a source, its partner in another one.

    Attributes:
        source: the source of the partners.
        indices: for each image, the index of its partner there; None for an image without one.
        place: what the user calls the source, for messages.
    """

    source: ImageSource
    indices: Sequence[int | None]
    place: str

    def index_of(self, index: int, name: str) -> int:
        """The index of the partner of an image.

        Args:
            index: index of the image.
            name: name of the image, for messages.

        Raises:
            DataError: if it has none.
        """
        partner = self.indices[index]
        if partner is None:
            raise DataError(f"{name}: {self.why_none}")
        return partner

    @property
    def why_none(self) -> str:
        """What is wrong with an image that has no partner."""
        return f"has no partner of the same name in {self.place}."

    def part(self, indices: Sequence[int]) -> Partners:
        """The partners of a part of the images."""
        return self._replace(indices=[self.indices[index] for index in indices])


class SelectedSource(ImageSource):
    """Some images of a source.

    Args:
        source: all images.
        indices: the indices of those that are in the selection, in their new order.
        faults: faults that were found while they were selected.
    """

    def __init__(
        self, source: ImageSource, indices: Sequence[int], faults: Sequence[SourceFault] = ()
    ) -> None:
        self.source = source
        self.check_words = source.check_words
        self.indices = list(indices)
        if source.partners is not None:
            self.partners = source.partners.part(self.indices)
        earlier = source.notes.without(map(str, faults)).faults
        self.notes = SourceNotes((*earlier, *faults), source.notes.other_files)

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        return self.source.key(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def read(self, index: int) -> bytes:
        return self.source.read(self.indices[index])

    def open(self, index: int) -> BinaryIO:
        return self.source.open(self.indices[index])

    def number_in_file(self, index: int) -> int:
        return self.source.number_in_file(self.indices[index])

    def volume(self, index: int) -> str | None:
        return self.source.volume(self.indices[index])

    def size_bytes(self, index: int) -> int | None:
        return self.source.size_bytes(self.indices[index])

    def labels(self, index: int) -> dict[str, str]:
        return self.source.labels(self.indices[index])

    def other_values(self, index: int) -> dict[str, Any]:
        return self.source.other_values(self.indices[index])


def with_labels(
    source: ImageSource, only: Mapping[str, Sequence[str]], *, all_names: bool = True
) -> SelectedSource:
    """Select the images of a source that have certain labels.

    Args:
        source: all images.
        only: the class names to keep, by label field; an image must match every field.
        all_names: whether each of the names must occur.

    Raises:
        DataError: if no image has one of the names, or none matches every field.
    """
    for field, names in only.items():
        vocabulary = source.vocabulary([field])[field]
        for name in names:
            if all_names and name not in vocabulary:
                raise DataError(f"no image has {field} {name!r}: {nearest(name, vocabulary)}")
    indices: list[int] = []
    unknown: list[SourceFault] = []
    for index in range(len(source)):
        try:
            labels = source.labels(index)
        except DataError as error:
            name = source.name(index)
            reason = str(error).removeprefix(f"{name}: ")
            unknown.append(SourceFault(NOT_SELECTED, name, reason))
            continue
        if all(labels.get(field) in names for field, names in only.items()):
            indices.append(index)
    if not indices:
        raise DataError(f"no image has all of {dict(only)}.")
    return SelectedSource(source, indices, unknown)
