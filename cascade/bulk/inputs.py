"""What inputs stand for: files, folders, globs and webdataset shards, down to single pictures."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

from cascade.data.remote import default_cache, is_remote
from cascade.data.shards import ShardImage, find_shards, index_shard
from cascade.errors import DataError, OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import decode_picture, read_picture


@dataclass(frozen=True)
class InputPicture:
    """One picture to work on, in a file of its own or in a webdataset shard.

    Attributes:
        file: that holds it.
        place: where it belongs below the folder of the results, with its suffix.
        image: where it lies in the shard.
    """

    file: Path
    place: PurePosixPath
    image: ShardImage | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return str(self.file) if self.image is None else self.image.name

    def stamp(self) -> tuple[int, int]:
        """Its size in bytes, and when its file was last changed, in ns.

        Raises:
            DataError: if the file is gone or is none.
        """
        try:
            found = self.file.stat()
        except OSError as error:
            raise self._unreadable(error) from error
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{self.name}: not a file.")
        return (self.image.size_bytes if self.image else found.st_size), found.st_mtime_ns

    def sha256(self) -> str:
        """Of its bytes, in hex.

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

    def read(self) -> Picture:
        """Decode it.

        Raises:
            DataError: if it is not a picture that can be read.
        """
        if self.image is not None:
            return decode_picture(self.image.read(), self.name)
        return read_picture(self.file)

    def identity(self) -> tuple[str, str]:
        """The same for two ways to name one picture."""
        return os.path.realpath(self.file), self.image.member if self.image else ""

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(f"{self.name}: cannot be read ({error.strerror or error}).")


@dataclass
class Found:
    """What inputs stand for.

    Attributes:
        pictures: in their order, each once.
        unreadable: folders and shards that could not be read: what and why.
        passed_over: files in folders that are hidden or not pictures by their suffix.
    """

    pictures: list[InputPicture] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    passed_over: set[Path] = field(default_factory=set)


def find_inputs(inputs: Sequence[str], *, results: Path | None = None) -> Found:
    """Find the pictures that inputs stand for.

    - A file is always taken, whatever its name, and goes by its name alone.
    - A folder is searched recursively, links to folders too, and its structure is kept; hidden
      files and those whose suffix is not of a picture are passed over.
    - A glob, in which `**` is any number of folders, does the same with all that it matches; the
      structure is kept from its first wildcard on.
    - A webdataset shard, whose name ends in `.tar`, a pattern of shards as training takes it, or
      the URL of one, gives its pictures into a folder of its name.

    Args:
        inputs: what the user named.
        results: that of the results, in which nothing is looked for unless an input lies in it.

    Raises:
        DataError: if one of the inputs is missing or matches nothing, or there is no picture in
            all of them.
        OutputError: if the folder of the results is one of the inputs.
    """
    found = Found()
    search = _Search(found, None if results is None else results.resolve())
    for text in inputs:
        search.take(text)
    once: dict[tuple[str, str], InputPicture] = {}
    for picture in found.pictures:
        once.setdefault(picture.identity(), picture)
    found.pictures = list(once.values())
    if not found.pictures and not found.unreadable:
        raise DataError(
            f"no pictures in {', '.join(inputs)} ({len(found.passed_over)} other files); looked "
            f"for {', '.join(sorted(IMAGE_SUFFIXES))}. Shards are named by themselves: 'a/*.tar'."
        )
    return found


@dataclass(frozen=True)
class _Search:
    found: Found
    results: Path | None

    def take(self, text: str) -> None:
        if is_remote(text) or (text.endswith(".tar") and not os.path.exists(text)):
            self._shards(text)
        elif os.path.isdir(text):
            self._folder(Path(text), Path(text))
        elif os.path.exists(text):
            self._file(Path(text), Path(text).parent)
        elif glob.has_magic(text):
            self._glob(text)
        else:
            raise DataError(f"{text}: no such file or folder.")

    def _file(self, path: Path, base: Path) -> None:
        if path.suffix == ".tar":
            self._shard(path, str(path))
        else:
            place = PurePosixPath(path.relative_to(base).as_posix())
            self.found.pictures.append(InputPicture(path, place))

    def _glob(self, pattern: str) -> None:
        base = Path(*takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts))
        matches = sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise DataError(f"{pattern}: matches no file or folder.")
        for path in map(Path, matches):
            if self._is_result(path, base):
                continue
            if path.is_dir():
                self._folder(path, base)
            elif path.suffix == ".tar" or _is_picture(path):
                self._file(path, base)
            else:
                self.found.passed_over.add(path)

    def _folder(self, folder: Path, base: Path) -> None:
        if folder.resolve() == self.results:
            raise OutputError(
                f"{folder} is an input, so the results cannot go there; choose another folder."
            )
        seen, waiting = set(), [folder]  # links wait, so that pictures have their real places
        for top in waiting:
            for root, folders, files in os.walk(top, onerror=self._cannot_look):
                if os.path.realpath(root) in seen:  # a link leads back to it
                    folders.clear()
                    continue
                seen.add(os.path.realpath(root))
                visible = [Path(root, name) for name in sorted(folders) if name[0] != "."]
                wanted = [path for path in visible if not self._is_result(path, folder)]
                folders[:] = [path.name for path in wanted]
                waiting += [path for path in wanted if path.is_symlink()]
                self._files([Path(root, name) for name in sorted(files)], base)

    def _files(self, paths: Sequence[Path], base: Path) -> None:
        for path in paths:
            if _is_picture(path):
                self._file(path, base)
            else:
                self.found.passed_over.add(path)

    def _is_result(self, path: Path, base: Path) -> bool:
        """Whether it lies in the folder of the results, to which the search came from outside."""
        if self.results is None or base.resolve().is_relative_to(self.results):
            return False
        return path.resolve().is_relative_to(self.results)

    def _cannot_look(self, error: OSError) -> None:
        self._fail(str(error.filename), f"cannot be read ({error.strerror or error}).")

    def _shards(self, pattern: str) -> None:
        shards = find_shards(pattern, default_cache())
        if not shards:
            raise DataError(f"{pattern}: no such shard.")
        for shard, name in shards:
            self._shard(shard, name)

    def _shard(self, shard: Path, name: str) -> None:
        try:
            images = index_shard(shard, name)
        except DataError as error:
            self._fail(name, str(error))
            return
        folder = PurePosixPath(name.rpartition("/")[2]).with_suffix("")
        for image in sorted(images, key=lambda image: image.member):
            member = PurePosixPath(image.member)
            if member.is_absolute() or ".." in member.parts:
                self._fail(image.name, "its name leads out of the folder of the results.")
            else:
                self.found.pictures.append(InputPicture(shard, folder / member, image))

    def _fail(self, name: str, reason: str) -> None:
        self.found.unreadable.append((name, reason.removeprefix(f"{name}: ")))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
