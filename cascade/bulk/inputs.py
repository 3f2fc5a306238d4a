"""Finds the pictures that inputs name: files, folders, globs, webdataset shards and addresses."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import stat
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cascade.bulk.left_out import LeftOut
from cascade.data.object_stores import StoredObject, list_objects
from cascade.data.remote import default_cache, is_remote
from cascade.data.shard_index import ShardImage, index_shard
from cascade.data.shards import find_shards
from cascade.errors import DataError, OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES, read_bytes
from cascade.imaging.pages import Heads, read_heads
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import Truncated, decode_picture
from cascade.imaging.rasters.reading import suffix_of

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
    """

    file: Path
    place: PurePosixPath
    image: ShardImage | StoredObject | None = None

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
        try:
            status = self.file.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{self.name}: not a file.")
        return (self.image.size_bytes if self.image else status.st_size), status.st_mtime_ns

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

    def identity(self) -> tuple[str, str]:
        """Real path and member; the same for two ways to name one picture."""
        if isinstance(self.image, StoredObject):
            return self.image.address, ""
        return os.path.realpath(self.file), self.image.member if self.image else ""

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.name}: cannot be read ({error.strerror or error}).")


@dataclass
class InputListing:
    """The pictures and other files in the inputs.

    Attributes:
        pictures: the pictures in the order of the inputs, each once.
        unreadable: name and reason of each folder or shard that could not be read.
        left_out: files in folders that are hidden or do not have the suffix of a picture.
    """

    pictures: list[InputPicture] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def find_pictures(
    inputs: Sequence[str], *, results: Path | None = None, suffixes: Set[str] = IMAGE_SUFFIXES
) -> InputListing:
    """Find the pictures that inputs name.

    - A file counts as a picture whatever its name; its result keeps the name, without folders.
    - A folder is searched recursively, including links to folders; results keep its structure.
      Hidden files and files without the suffix of a picture are left out.
    - A glob, in which `**` matches any number of folders, does the same with all its matches;
      results keep the structure from the first wildcard on.
    - The results of a webdataset shard go into a folder with the shard's name. A shard is a file
      that ends in `.tar`, a pattern of shards as for training, or the URL of a shard.
    - An address such as `s3://bucket/scans` names a file, a folder or a glob of an object store,
      unless it ends in `.tar`.
    - A picture that several inputs or links lead to is taken once. Its place is the one that is
      reached without a link, and among these the deepest, whatever the order of the inputs.

    Args:
        inputs: names of files, folders or shards, and patterns.
        results: folder of the results, which is not searched unless an input lies in it.
        suffixes: suffixes of pictures, in small letters.

    Raises:
        DataError: if an input does not exist or matches nothing, or if none holds a picture.
        OutputError: if the folder of the results is one of the inputs.
    """
    listing = InputListing()
    search = _Search(listing, None if results is None else results.resolve(), suffixes)
    for text in inputs:
        search.add_input(text)
    listing.pictures = search.chosen()
    if not listing.pictures and not listing.unreadable:
        raise DataError(
            f"no pictures in {', '.join(inputs)} ({listing.left_out.counts() or 'no files'}); "
            f"expected {', '.join(sorted(suffixes))}. Name shards one by one or as 'a/*.tar'."
        )
    return listing


@dataclass(frozen=True)
class _Search:
    listing: InputListing
    results: Path | None  # resolved
    suffixes: Set[str]
    places: dict[tuple[str, str], list[tuple[bool, InputPicture]]] = field(default_factory=dict)

    def chosen(self) -> list[InputPicture]:
        """Each picture once, in the order of the inputs, at its own place."""
        return [min(ways, key=_rank)[1] for ways in self.places.values()]

    def _add(self, picture: InputPicture, base: Path) -> None:
        """Note one way to a picture, and whether a link below `base` leads to it."""
        identity = picture.identity()
        own = os.path.join(os.path.realpath(base), picture.file.relative_to(base))
        self.places.setdefault(identity, []).append((own != identity[0], picture))

    def add_input(self, text: str) -> None:
        if _is_address(text):
            self._add_objects(text)
        elif is_remote(text) or (text.endswith(".tar") and not os.path.exists(text)):
            self._add_shards(text)
        elif os.path.isdir(text):
            self._add_folder(Path(text), Path(text))
        elif os.path.exists(text):
            self._add_file(Path(text), Path(text).parent)
        elif glob.has_magic(text):
            self._add_matches(text)
        else:
            raise DataError(f"{text}: no such file or folder.")

    def _add_file(self, path: Path, base: Path) -> None:
        if path.suffix == ".tar":
            self._add_shard(path, str(path))
        else:
            place = PurePosixPath(path.relative_to(base).as_posix())
            self._add(InputPicture(path, place), base)

    def _add_matches(self, pattern: str) -> None:
        base = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
        paths = sorted(glob.glob(pattern, recursive=True))
        if not paths:
            raise DataError(f"{pattern}: matches no file or folder.")
        for path in map(Path, paths):
            if self._is_result(path, base):
                continue
            if path.is_dir():
                self._add_folder(path, base)
            elif path.suffix == ".tar":
                self._add_file(path, base)
            else:
                self._add_pictures([path], base)

    def _add_folder(self, folder: Path, base: Path) -> None:
        if folder.resolve() == self.results:
            raise OutputError(
                f"{folder} is an input, so the results cannot go there; choose another folder."
            )
        visited: set[str] = set()
        waiting = [folder]  # links wait, so that pictures get their real places
        for top in waiting:
            for root, folders, files in os.walk(top, onerror=self._note_unreadable_folder):
                if os.path.realpath(root) in visited:  # a link leads back to it
                    folders.clear()
                    continue
                visited.add(os.path.realpath(root))
                inner = self._folders_to_search(root, folders, folder)
                folders[:] = [path.name for path in inner]
                waiting += [path for path in inner if path.is_symlink()]
                self._add_pictures([Path(root, name) for name in sorted(files)], base)

    def _folders_to_search(self, root: str, names: Sequence[str], top: Path) -> list[Path]:
        paths = [Path(root, name) for name in sorted(names)]
        paths = [path for path in paths if not self._is_result(path, top)]
        for path in paths:
            if path.name.startswith("."):
                self.listing.left_out.add_hidden_folder(path)
        return [path for path in paths if not path.name.startswith(".")]

    def _add_pictures(self, paths: Sequence[Path], base: Path) -> None:
        for path in paths:
            if _is_visible_picture(path, self.suffixes):
                self._add_file(path, base)
            else:
                self.listing.left_out.add_file(path)

    def _add_objects(self, address: str) -> None:
        for stored, place in list_objects(address):
            path, place = Path(stored.address.partition("://")[2]), PurePosixPath(place)
            is_hidden = any(part.startswith(".") for part in place.parts)
            is_picture = not is_hidden and suffix_of(path.name) in self.suffixes
            if is_picture or address.endswith(f"/{place}"):  # an address may name any file
                picture = InputPicture(path, place, stored)
                self.places.setdefault(picture.identity(), []).append((False, picture))
            else:
                self.listing.left_out.add_file(path)

    def _is_result(self, path: Path, base: Path) -> bool:
        """Whether a path lies in the folder of the results, and the search began outside it."""
        if self.results is None or base.resolve().is_relative_to(self.results):
            return False
        return path.resolve().is_relative_to(self.results)

    def _add_shards(self, pattern: str) -> None:
        shards = find_shards(pattern, default_cache())
        if not shards:
            raise DataError(f"{pattern}: no such shard.")
        for shard, name in shards:
            self._add_shard(shard, name)

    def _add_shard(self, shard: Path, name: str) -> None:
        try:
            images = index_shard(shard, name, self.suffixes).images
        except DataError as error:
            self._note_unreadable(name, str(error))
            return
        folder = PurePosixPath(name.rpartition("/")[2]).with_suffix("")
        for image in sorted(images, key=lambda image: image.member):
            member = PurePosixPath(image.member)
            if member.is_absolute() or ".." in member.parts:
                self._note_unreadable(image.name, "its name leads out of the folder of results.")
            else:
                self._add(InputPicture(shard, folder / member, image), shard.parent)

    def _note_unreadable_folder(self, error: OSError) -> None:
        reason = f"cannot be read ({error.strerror or error})."
        self._note_unreadable(str(error.filename), reason)

    def _note_unreadable(self, name: str, reason: str) -> None:
        self.listing.unreadable.append((name, reason.removeprefix(f"{name}: ")))


def _rank(way: tuple[bool, InputPicture]) -> tuple[bool, int, str]:
    """Order of the ways to one picture: without links first, then from the highest folder."""
    by_link, picture = way
    return by_link, -len(picture.place.parts), str(picture.place)


def _is_address(text: str) -> bool:
    """Whether a text is the address of pictures, and not of shards."""
    return is_remote(text) and not text.startswith("pipe:") and ".tar" not in text


def _is_visible_picture(path: Path, suffixes: Set[str]) -> bool:
    return suffix_of(path.name) in suffixes and not path.name.startswith(".")
