"""A folder of image files as a source of training images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cascade.data.annotations import NamePattern, caption, json_labels, read_metadata
from cascade.data.source import ImageSource, check_text, read_file
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES

SIDECAR_SUFFIXES = (".json", ".txt")


class FolderSource(ImageSource):
    """A folder of image files, searched recursively; symbolic links to folders are followed.

    Labels come from files beside the images, a table, the first folder level or the file names:
    see `cascade.data.annotations`. Hidden files and folders are ignored. Images are sorted by path
    as text, which is also the order of the same files in shards.

    Args:
        folder: root folder of the images.
        name_pattern: a regular expression whose named groups are labels.

    Raises:
        DataError: if the folder is missing or holds no image, a file name is not UTF-8, or the
            metadata cannot be read.
    """

    def __init__(self, folder: Path, *, name_pattern: str | None = None) -> None:
        if not folder.is_dir():
            raise DataError(_why_no_folder(folder))
        self.folder = folder
        self._pattern = NamePattern(name_pattern)
        files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        for name, path in files.items():
            check_text(name, str(path))
        self._sidecars = {name for name in files if name.endswith(SIDECAR_SUFFIXES)}
        images = sorted(name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES)
        self.files = [files[name] for name in images]
        if not self.files:
            raise DataError(_why_no_images(folder))
        self._metadata = read_metadata(folder, images)

    def __len__(self) -> int:
        return len(self.files)

    def key(self, index: int) -> str:
        return self.files[index].relative_to(self.folder).with_suffix("").as_posix()

    def name(self, index: int) -> str:
        return str(self.files[index])

    def read(self, index: int) -> bytes:
        return read_file(self.files[index], self.name(index))

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
        labels |= self._metadata.get(path.as_posix(), {})
        for suffix, parse in ((".txt", caption), (".json", json_labels)):
            if key + suffix in self._sidecars:
                file = self.folder / (key + suffix)
                labels |= parse(read_file(file, str(file)), str(file))
        return labels


def _files(folder: Path) -> Iterator[Path]:
    """All images and sidecars that are not hidden; each folder once, whatever links to it.

    Dangling links are included: each is a broken image, which must not go unnoticed.
    """
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            folders[:] = []
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for name in names if _is_data(path := Path(place, name)))


def _is_data(path: Path) -> bool:
    if path.name.startswith(".") or path.suffix.lower() not in (*IMAGE_SUFFIXES, *SIDECAR_SUFFIXES):
        return False
    return path.is_file() or not path.exists()


def _why_no_folder(path: Path) -> str:
    if path.is_file():
        return f"{path} is a file; data must be a folder of images, or shards that end in .tar."
    return f"no data at {path}: the folder does not exist."


def _why_no_images(folder: Path) -> str:
    if next(folder.glob("*.tar"), None) is not None:
        return (
            f"no images in {folder}, but shards; give a pattern such as {folder / 'train-*.tar'}."
        )
    return f"no images in {folder}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}."
