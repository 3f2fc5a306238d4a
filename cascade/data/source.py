"""ImageSource: the interface of every source of training images."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

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


class ImageSource(ABC):
    """Encoded images with their labels, read by index."""

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

    @abstractmethod
    def labels(self, index: int) -> dict[str, str]:
        """The image's labels by field, such as `{"class": "cat-face"}`.

        Raises:
            DataError: if a file of labels cannot be read.
        """

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
        names: dict[str, set[str]] = {field: set() for field in fields}
        for index in range(len(self)):
            labels = self.readable_labels(index)
            for field in fields:
                if field in labels:
                    names[field].add(labels[field])
        for field in fields:
            if not names[field]:
                raise DataError(
                    f"no image has a label {field!r}; put images into one folder per class, or "
                    "name a field of the shards' JSON, of metadata.csv or of a name pattern."
                )
        return {field: sorted(names[field]) for field in fields}


class SelectedSource(ImageSource):
    """The images of a source that have certain labels.

    Args:
        source: all images.
        only: the class names to keep, by label field; an image must match every field.

    Raises:
        DataError: if no image has one of the names, or none matches every field.
    """

    def __init__(self, source: ImageSource, only: Mapping[str, Sequence[str]]) -> None:
        for field, names in only.items():
            vocabulary = source.vocabulary([field])[field]
            for name in names:
                if name not in vocabulary:
                    raise DataError(f"no image has {field} {name!r}: {nearest(name, vocabulary)}")
        self.source = source
        self.indices = [
            index
            for index in range(len(source))
            if all(source.labels(index).get(field) in names for field, names in only.items())
        ]
        if not self.indices:
            raise DataError(f"no image has all of {dict(only)}.")

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        return self.source.key(self.indices[index])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def read(self, index: int) -> bytes:
        return self.source.read(self.indices[index])

    def size_bytes(self, index: int) -> int | None:
        return self.source.size_bytes(self.indices[index])

    def labels(self, index: int) -> dict[str, str]:
        return self.source.labels(self.indices[index])
