"""A folder of image files as a source of training images."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cascade.data.annotations import (
    NamePattern,
    caption,
    json_labels,
    json_values,
    without_texts,
)
from cascade.data.folder_listing import FolderListing, list_folder
from cascade.data.label_files import check_label_files
from cascade.data.metadata_table import read_metadata, unread_tables
from cascade.data.notes import IMAGE_WITHOUT_ROW, SourceNotes
from cascade.data.roles import Role, without_role
from cascade.data.source import ImageSource, read_file
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.rasters.reading import suffix_of

PARSERS = {".txt": caption, ".json": json_labels}  # the later one wins


class FolderSource(ImageSource):
    """A folder of image files, searched recursively; symbolic links to folders are followed.

    Labels come from files beside the images, a table, the first folder level or the file names:
    see `cascade.data.annotations`. Hidden files and folders are ignored. Images are sorted by path
    as text, which is also the order of the same files in shards.

    Args:
        folder: root folder of the images.
        name_pattern: a regular expression whose named groups are labels.
        suffixes: suffixes of the files that are images, in small letters.
        role: of pairs `NAME.low.*` and `NAME.high.*`, which of both images to read. The key of
            both is `NAME`, and so is the name of their labels.

    Raises:
        DataError: if the folder is missing or holds no image, a file name is not UTF-8, or the
            metadata cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name_pattern: str | None = None,
        suffixes: Set[str] = IMAGE_SUFFIXES,
        role: Role | None = None,
    ) -> None:
        if not folder.is_dir():
            raise DataError(_why_no_folder(folder))
        self.folder = folder
        self.role = role
        self._pattern = NamePattern(name_pattern)
        listing = list_folder(folder, suffixes, role)
        if not listing.images:
            raise DataError(_why_no_images(folder, listing, suffixes, role))
        self.files = list(listing.images.values())
        self._label_files = listing.label_files
        self._table = read_metadata(folder, list(listing.images))
        self.notes = self._notes(listing)

    def _notes(self, listing: FolderListing) -> SourceNotes:
        """Compare the table and the files of labels with the images."""
        images = [(name, self._key(name)) for name in listing.images]
        label_files = {key: str(path) for key, path in listing.label_files.items()}
        files = check_label_files(images, label_files)
        for key in files.unrelated:
            listing.add_other(key[1], listing.label_files[key])
        labelled = {
            str(self.folder / name)
            for name, key in images
            if any((key, suffix) in label_files for suffix in PARSERS)
        }
        rows = [
            fault
            for fault in self._table.faults
            if fault.kind != IMAGE_WITHOUT_ROW or fault.name not in labelled
        ]
        others = {
            kind: tuple(file for file in files if file != str(self._table.path))
            for kind, files in listing.other_files.items()
        }
        files_beside = (file for files in others.values() for file in files)
        unread = unread_tables(files_beside, self.folder, self._table.path)
        return SourceNotes((*listing.faults, *rows, *files.faults, *unread), others)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        return self._key(self.files[index].relative_to(self.folder).as_posix())

    def name(self, index: int) -> str:
        return str(self.files[index])

    def read(self, index: int) -> bytes:
        return read_file(self.files[index], self.name(index))

    def open(self, index: int) -> BinaryIO:
        try:
            return self.files[index].open("rb")
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{self.name(index)}: cannot be read ({reason}).") from error

    def size_bytes(self, index: int) -> int | None:
        try:
            return self.files[index].stat().st_size
        except OSError:  # reported when the image is read
            return None

    def labels(self, index: int) -> dict[str, str]:
        path = self.files[index].relative_to(self.folder)
        key = self.key(index)
        labels = self._pattern.fields(key)
        if len(path.parts) > 1:
            labels["class"] = path.parts[0]
        for field in self._table.columns:  # else an image without a row would be of class `images`
            labels.pop(field, None)
        if (error := self._table.errors.get(path.as_posix())) is not None:
            raise DataError(error)
        labels |= self._table.fields.get(path.as_posix(), {})
        for suffix, parse in PARSERS.items():
            file = self._label_files.get((key, suffix))
            if file is not None:
                labels |= parse(read_file(file, str(file)), str(file))
        return labels

    def other_values(self, index: int) -> dict[str, Any]:
        name = self.files[index].relative_to(self.folder).as_posix()
        values = self._table.other_values.get(name, {})
        file = self._label_files.get((self._key(name), ".json"))
        if file is None:
            return values
        return values | without_texts(json_values(read_file(file, str(file)), str(file)))

    def _key(self, name: str) -> str:
        path = PurePosixPath(name)
        key = str(path.with_name(path.name[: len(path.name) - len(suffix_of(path.name))]))
        return key if self.role is None else without_role(key)


def _why_no_folder(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file; data must be a folder of images, or shards that end in .tar."
    return f"no data at {path}: the folder does not exist."


def _why_no_images(
    folder: Path, listing: FolderListing, suffixes: Set[str], role: Role | None
) -> str:
    if ".tar" in listing.other_files:
        return (
            f"no images in {folder}, but shards; give a pattern such as {folder / 'train-*.tar'}."
        )
    others = {kind: tuple(files) for kind, files in listing.other_files.items()}
    lines = SourceNotes(tuple(listing.faults), others).lines()
    start = "" if role is None else f"NAME.{role}"
    looked_for = ", ".join(f"{start}{suffix}" for suffix in sorted(suffixes))
    return " ".join([f"no images in {folder}; looked for {looked_for}.", *lines])
