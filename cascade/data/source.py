"""What every source of training images can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from cascade.errors import DataError, nearest

MAX_MEMBER_BYTES = 256 * 1024 * 1024  # of one file in a source
MAX_LABELS_BYTES = 1024 * 1024  # of the labels beside an image in a shard


def check_text(name: str, shown: str) -> None:
    """Check that a file's name is text, which keys, labels and messages are made of.

    Raises:
        DataError: if it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        readable = shown.encode(errors="replace").decode()
        raise DataError(f"{readable}: its name is not UTF-8; rename it.") from error


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a file of a source.

    Raises:
        DataError: naming it, if it is missing, no plain file, too large or cannot be read.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_MEMBER_BYTES or not path.is_file():  # a device never ends
            raise DataError(f"{name}: is no file, or has too many bytes ({size_bytes}); refused.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', error)}).") from error


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
        """What to call an image in messages."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: if they cannot be read.
        """

    @abstractmethod
    def labels(self, index: int) -> dict[str, str]:
        """The image's labels by field, such as `{"class": "cat-face"}`.

        Raises:
            DataError: if a file of labels cannot be read.
        """

    def readable_labels(self, index: int) -> dict[str, str]:
        """The image's labels; none if a file of them is broken, which is told when it is used."""
        try:
            return self.labels(index)
        except DataError:
            return {}

    def vocabulary(self, fields: Sequence[str]) -> dict[str, list[str]]:
        """Collect the names of each label field, sorted.

        Raises:
            DataError: if no image has such a field.
        """
        found: dict[str, set[str]] = {field: set() for field in fields}
        for index in range(len(self)):
            labels = self.readable_labels(index)
            for field in fields:
                if field in labels:
                    found[field].add(labels[field])
        for field, names in found.items():
            if not names:
                raise DataError(
                    f"no image has a label {field!r}; put images into one folder per class, or "
                    "name a field of the shards' JSON, of metadata.csv or of data.name_pattern; "
                    "without classes, set condition.labels=[] and sampling.guidance=1."
                )
        return {field: sorted(names) for field, names in found.items()}


class SelectedSource(ImageSource):
    """The images of a source that have certain labels.

    Args:
        source: to choose from.
        only: for each label field the names to keep.

    Raises:
        DataError: if a name stands on no image.
    """

    def __init__(self, source: ImageSource, only: Mapping[str, Sequence[str]]) -> None:
        for field, names in only.items():
            known = source.vocabulary([field])[field]
            for name in names:
                if name not in known:
                    raise DataError(f"no image has {field} {name!r}: {nearest(name, known)}")
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

    def labels(self, index: int) -> dict[str, str]:
        return self.source.labels(self.indices[index])
