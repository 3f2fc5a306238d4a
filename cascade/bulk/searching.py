"""Finds the pictures that inputs name: files, folders, globs, webdataset shards and addresses."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

from cascade.bulk.inputs import InputListing, InputPicture, InputShard
from cascade.bulk.parts import Part, Slice
from cascade.data.notes import DOTTED_NAME
from cascade.data.object_stores import (
    StoredObject,
    list_objects,
    listed_address,
    without_query,
)
from cascade.data.remote import default_cache, is_remote, without_secrets
from cascade.data.shard_index import index_shard
from cascade.data.shards import list_shards, shard_file
from cascade.errors import DataError, OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.other_files import NOT_REGULAR
from cascade.imaging.rasters.reading import suffix_of

SHARD = re.compile(r"\.tar($|[?#])")  # the end of the address of a shard
LINK = "is a link, not a file; pack the shard with tar --dereference --hard-dereference."


def find_pictures(
    inputs: Sequence[str],
    *,
    results: Path | None = None,
    stored_results: str | None = None,
    suffixes: Set[str] = IMAGE_SUFFIXES,
    part: Part | None = None,
    mask: Path | None = None,
) -> InputListing:
    """Find the pictures that inputs name.

    - A file counts as a picture whatever its name; its result keeps the name, without folders.
    - A folder is searched recursively, including links to folders; results keep its structure.
      Hidden files and files without the suffix of a picture are left out.
    - A glob, in which `**` matches any number of folders, does the same with all its matches;
      results keep the structure from the first wildcard on.
    - The results of a webdataset shard go into a shard of its name. A shard is a file that ends in
      `.tar`, a pattern of shards as for training, or the URL of a shard.
    - An address such as `s3://bucket/scans` names a file, a folder or a glob of an object store,
      unless it ends in `.tar`.
    - A file that several inputs or links lead to is taken once. Its place is the one that is
      reached without a link, and among these the deepest, whatever the order of the inputs.

    Args:
        inputs: names of files, folders or shards, and patterns.
        results: folder of the results, which is not searched unless an input lies in it.
        stored_results: address of a folder of a store, as `list_objects` spells it, instead of it.
        suffixes: suffixes of pictures, in small letters.
        part: the part of the inputs to take; None for all. Shards of other parts are not opened.
        mask: the mask of the pictures, which folders and globs leave out.

    Raises:
        DataError: if an input does not exist or matches nothing, or if none holds a picture.
        OutputError: if the folder of the results is one of the inputs.
    """
    listing = InputListing()
    resolved = None if results is None else results.resolve()
    search = _Search(listing, resolved, stored_results, suffixes, mask and mask.resolve())
    for text in inputs:
        search.add_input(text)
    is_part_of_some = search.choose(part)
    if not listing.pictures and not listing.unreadable and not is_part_of_some:
        raise DataError(
            f"no images in {', '.join(inputs)} ({listing.left_out.counts() or 'no files'}); "
            f"expected {', '.join(sorted(suffixes))}. Name shards one by one or as 'a/*.tar'."
        )
    return listing


@dataclass(frozen=True)
class _Way:
    """One way to a picture or shard; `path` may be a URL."""

    path: str
    place: PurePosixPath
    is_shard: bool
    is_link: bool = False
    stored: StoredObject | None = None

    def rank(self) -> tuple[bool, int, str]:
        """Order of the ways: without links first, then from the highest folder."""
        return self.is_link, -len(self.place.parts), str(self.place)


@dataclass(frozen=True)
class _Search:
    listing: InputListing
    results: Path | None  # resolved
    stored_results: str | None
    suffixes: Set[str]
    mask: Path | None  # resolved
    ways: dict[str, list[_Way]] = field(default_factory=dict)  # by real path or URL
    real_folders: dict[str, str] = field(default_factory=dict)  # paths without links, by path

    def choose(self, part: Part | None) -> bool:
        """List each picture once, in the order of the inputs, at its own place.

        Returns:
            Whether there are inputs in other parts.
        """
        ways = [min(each, key=_Way.rank) for each in self.ways.values()]
        own = ways if part is None else [way for way in ways if part.holds(way.place)]
        for way in own:
            if way.is_shard:
                self._list_shard(way)
            else:
                self.listing.pictures.append(InputPicture(Path(way.path), way.place, way.stored))
        if part is not None:
            names = "\0".join(sorted(str(way.place) for way in ways))
            digest = hashlib.sha256(os.fsencode(names)).hexdigest()
            self.listing.slice = Slice(part, len(ways), digest[:12])
        return len(own) < len(ways)

    def _add(self, path: Path, base: Path) -> None:
        """Note one way to a file, and whether a link below `base` leads to it."""
        real, place = self._real_path(path), path.relative_to(base)
        is_link = os.path.join(self._real_folder(base), place) != real
        way = _Way(str(path), PurePosixPath(place.as_posix()), path.suffix == ".tar", is_link)
        self.ways.setdefault(real, []).append(way)

    def _real_path(self, path: Path) -> str:
        """The path of a file without links; looks at each folder once."""
        real = os.path.join(self._real_folder(path.parent), path.name)
        return os.path.realpath(real) if os.path.islink(real) else real

    def _real_folder(self, folder: Path) -> str:
        text = str(folder)
        if text not in self.real_folders:
            self.real_folders[text] = os.path.realpath(text)
        return self.real_folders[text]

    def add_input(self, text: str) -> None:
        is_glob = glob.has_magic(text) and "{" not in text
        is_shard = text.endswith(".tar") and not is_glob and not os.path.exists(text)
        if _is_address(text):
            self._add_objects(text)
        elif is_remote(text) or is_shard:
            self._add_shards(text)
        elif os.path.isdir(text):
            self._add_folder(Path(text), Path(text))
        elif os.path.exists(text):
            self._add(Path(text), Path(text).parent)
        elif glob.has_magic(text):
            self._add_matches(text)
        else:
            raise DataError(f"{text}: no such file or folder.")

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
                self._add(path, base)
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
            if self.mask is not None and path.name == self.mask.name and path.samefile(self.mask):
                self.listing.left_out.add_mask(path)
            elif _is_visible_picture(path, self.suffixes):
                self._add(path, base)
            else:
                self.listing.left_out.add_file(path)

    def _is_stored_result(self, address: str) -> bool:
        """Whether an address lies in the folder of the results, which must not be an input.

        Raises:
            OutputError: if it is that folder.
        """
        if self.stored_results is None:
            return False
        address = listed_address(address)
        if address == self.stored_results:
            raise OutputError(
                f"{without_secrets(address)} is an input, so the results cannot go there; choose "
                "another folder."
            )
        return address.startswith(f"{self.stored_results}/")

    def _add_objects(self, address: str) -> None:
        is_outside = not self._is_stored_result(address)
        for stored, place in list_objects(address):
            if is_outside and self._is_stored_result(stored.address):
                continue
            path = Path(without_query(stored.address).partition("://")[2])
            place = PurePosixPath(place)
            is_hidden = any(part.startswith(".") for part in place.parts)
            is_picture = not is_hidden and suffix_of(path.name) in self.suffixes
            if is_picture or without_query(address).endswith(
                f"/{place}"
            ):  # an address may name any file
                way = _Way(str(path), place, is_shard=False, stored=stored)
                self.ways.setdefault(stored.address, []).append(way)
            else:
                self.listing.left_out.add_file(path)

    def _is_result(self, path: Path, base: Path) -> bool:
        """Whether a path lies in the folder of the results, and the search began outside it."""
        if self.results is None or base.resolve().is_relative_to(self.results):
            return False
        return path.resolve().is_relative_to(self.results)

    def _add_shards(self, pattern: str) -> None:
        shards = list_shards(pattern)
        if not shards:
            raise DataError(f"{pattern}: no such shard.")
        for shard in shards:
            if is_remote(shard):
                name = PurePosixPath(without_secrets(shard).rpartition("/")[2])
                self.ways.setdefault(shard, []).append(_Way(shard, name.with_suffix(".tar"), True))
            else:
                self._add(Path(shard), Path(shard).parent)

    def _list_shard(self, way: _Way) -> None:
        name = without_secrets(way.path)
        try:
            file = shard_file(way.path, default_cache())
            stamp = InputPicture(file, way.place).stamp()
            index = index_shard(file, name, self.suffixes)
        except DataError as error:
            self._note_unreadable(name, str(error))
            return
        pictures: dict[str, InputPicture] = {}
        for image in sorted(index.images, key=lambda image: image.member):
            member = PurePosixPath(image.member)
            if member.is_absolute() or ".." in member.parts:
                self._note_unreadable(image.name, "its name leads out of the folder of results.")
            else:
                place = way.place.with_suffix("") / member
                pictures[image.member] = InputPicture(file, place, image, stamp[1])
        for link in index.other_members.get(NOT_REGULAR, ()):
            if suffix_of(link) in self.suffixes:
                self._note_unreadable(link, LINK)
        dotted = [fault for fault in index.faults if fault.kind == DOTTED_NAME]
        for fault in dotted:
            self._note_unreadable(fault.name, fault.reason)
        self.listing.pictures += pictures.values()
        unread = {fault.name.removeprefix(f"{name}:") for fault in dotted}
        unread |= {image.member for image in index.images} - pictures.keys()
        if pictures:
            shard = InputShard(file, name, way.place, pictures, stamp, unread)
            self.listing.shards.append(shard)
        else:
            self.listing.left_out.add_file(file)

    def _note_unreadable_folder(self, error: OSError) -> None:
        reason = f"cannot be read ({error.strerror or error})."
        self._note_unreadable(str(error.filename), reason)

    def _note_unreadable(self, name: str, reason: str) -> None:
        self.listing.unreadable.append((name, reason.removeprefix(f"{name}: ")))


def _is_address(text: str) -> bool:
    """Whether a text is the address of pictures, and not of shards."""
    return is_remote(text) and not text.startswith("pipe:") and not SHARD.search(text)


def _is_visible_picture(path: Path, suffixes: Set[str]) -> bool:
    return suffix_of(path.name) in suffixes and not path.name.startswith(".")
