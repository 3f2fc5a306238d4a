"""The pictures and shards that a bulk command works on, and what its inputs hold besides."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cascade.bulk.left_out import LeftOut
from cascade.bulk.parts import Slice
from cascade.data.object_stores import StoredObject
from cascade.data.shard_index import ShardImage
from cascade.errors import DataError
from cascade.imaging.opening import read_bytes
from cascade.imaging.pages import Heads, read_heads
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import Truncated, decode_picture

HEAD_BYTES = 1 << 18  # of a picture in a shard, in which its sizes are looked for


@dataclass(frozen=True)
class InputPicture:
    """One picture to work on, in a file of its own, in a webdataset shard or in an object store.

    Attributes:
        file: the picture's file, or the shard that holds it; its address without scheme if it is in
            a store.
        place: path of its result below the folder of the results, with the input's suffix.
        image: position of the picture in the shard, or the object of the store; None if it has a
            file of its own.
        listed_ns: time of the last change of the shard before it was listed, in ns; bytes that were
            read at this position since a later change count as another picture.
    """

    file: Path
    place: PurePosixPath
    image: ShardImage | StoredObject | None = None
    listed_ns: int | None = None

    @property
    def name(self) -> str:
        """The picture's name in messages."""
        return str(self.file) if self.image is None else self.image.name

    def stamp(self) -> tuple[int, int]:
        """Size of the picture in bytes, and time of the last change of its file, in ns.

        Raises:
            DataError: if the file is missing or not a regular file.
        """
        if isinstance(self.image, StoredObject):
            return self.image.stamp()
        if self.image is not None and self.listed_ns is not None:
            return self.image.size_bytes, self.listed_ns
        try:
            status = self.file.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{self.name}: not a file.")
        return status.st_size, status.st_mtime_ns

    def sha256(self) -> str:
        """SHA-256 of the picture's bytes, in hex.

        Raises:
            DataError: if they cannot be read.
        """
        if self.image is not None:
            return hashlib.sha256(self.image.read()).hexdigest()
        try:
            with self.file.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._unreadable(error) from error

    def read_bytes(self) -> bytes:
        """Read the picture's file.

        Raises:
            DataError: if it cannot be read.
        """
        return read_bytes(self.file) if self.image is None else self.image.read()

    def open(self) -> BinaryIO:
        """Open the picture's file, so that a large one need not be read at once.

        Raises:
            DataError: if it cannot be read.
        """
        if self.image is not None:
            return io.BytesIO(self.image.read())
        try:
            return self.file.open("rb")
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, truncated: Truncated = "refuse") -> Picture:
        """Decode the picture, or the first of its pages.

        Args:
            truncated: see `decode_picture`.

        Raises:
            DataError: if it is not a readable picture.
        """
        return decode_picture(self.read_bytes(), self.name, truncated=truncated)

    def heads(self, *, whole: bool = False) -> Heads | None:
        """What the file says about its pages, without decoding it; None if unknown.

        Args:
            whole: whether to read a member of a shard as a whole; else its first bytes must do,
                which may not tell of all pages.
        """
        try:
            if isinstance(self.image, StoredObject) and not whole:
                return None  # each would take a request before the work begins
            if self.image is not None:
                return read_heads(io.BytesIO(self._first_bytes(whole)), self.name)
            self.stamp()  # refuses a pipe, which would block
            with self.file.open("rb") as file:
                return read_heads(file, self.name)
        except (OSError, DataError):  # it is reported when the picture itself is read
            return None

    def page_count(self) -> int:
        """The number of pages or frames; 1 if unknown."""
        heads = self.heads(whole=True)
        return 1 if heads is None else len(heads.sizes)

    def is_animated_gif(self) -> bool:
        """Whether it is a GIF of several frames."""
        heads = self.heads(whole=True)
        return heads is not None and heads.format == "GIF" and len(heads.sizes) > 1

    def _first_bytes(self, whole: bool) -> bytes:
        assert self.image is not None
        if whole or isinstance(self.image, StoredObject):
            return self.image.read()
        with self.file.open("rb") as file:
            file.seek(self.image.offset)
            return file.read(min(self.image.size_bytes, HEAD_BYTES))

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.name}: cannot be read ({error.strerror or error}).")


@dataclass(frozen=True)
class InputShard:
    """One webdataset shard, whose results go into a shard of their own.

    Attributes:
        file: the shard, or the copy of a remote one.
        name: its name in messages.
        place: path of its result below the folder of the results.
        pictures: the pictures in it, by member; their places lie in a folder of its name.
        listed_stamp: its `stamp` before it was listed.
        unread: members that are pictures but are not read, and so are not in the result.
    """

    file: Path
    name: str
    place: PurePosixPath
    pictures: Mapping[str, InputPicture]
    listed_stamp: tuple[int, int]
    unread: Set[str] = frozenset()

    def stamp(self) -> tuple[int, int]:
        """Size of the shard in bytes, and time of its last change, in ns; see `InputPicture`."""
        return InputPicture(self.file, self.place).stamp()

    def check_unchanged(self) -> None:
        """Check that the shard is the file that was listed.

        Raises:
            DataError: if it was changed since, or is missing.
        """
        if self.stamp() != self.listed_stamp:
            raise DataError(f"{self.name}: changed during the work; run the command again.")

    def sha256(self) -> str:
        """SHA-256 of the shard's bytes, in hex; see `InputPicture`."""
        return InputPicture(self.file, self.place).sha256()


@dataclass
class InputListing:
    """The pictures and other files in the inputs, or in one part of them.

    Attributes:
        pictures: the pictures in the order of the inputs, each once.
        shards: the shards that hold some of them.
        slice: which part of the inputs it is; None for all.
        unreadable: name and reason of each folder or shard that could not be read.
        left_out: files in folders that are hidden or do not have the suffix of a picture.
    """

    pictures: list[InputPicture] = field(default_factory=list)
    shards: list[InputShard] = field(default_factory=list)
    slice: Slice | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
