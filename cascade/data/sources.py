"""Where training images come from: a folder of files, or webdataset shards.

Both are indexed once and read by index, in the order of their keys, so that they give the same
batches for the same pictures.
"""

from __future__ import annotations

import glob
import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from cascade.errors import DataError, nearest
from cascade.imaging.reading import IMAGE_SUFFIXES

MAX_MEMBER_BYTES = 256 * 1024 * 1024


class ImageSource(ABC):
    """Encoded images with their labels, read by index."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

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
        """The image's labels by field, such as `{"class": "cat-face"}`."""

    def vocabulary(self, fields: Sequence[str]) -> dict[str, list[str]]:
        """Collect the names of each label field, sorted.

        Raises:
            DataError: if no image has such a field.
        """
        found: dict[str, set[str]] = {field: set() for field in fields}
        for index in range(len(self)):
            labels = self.labels(index)
            for field in fields:
                if field in labels:
                    found[field].add(labels[field])
        for field, names in found.items():
            if not names:
                raise DataError(
                    f"no image has a label {field!r}; put images into one folder per class, or "
                    "name a field of the shards' JSON."
                )
        return {field: sorted(names) for field, names in found.items()}


class FolderSource(ImageSource):
    """A folder of image files, searched recursively; the first folder level is the class.

    Hidden files and folders are left out. The order is that of the paths as text, which is also
    the order of the same files in shards.

    Args:
        folder: where to look.

    Raises:
        DataError: if the folder is missing or holds no image.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"no data at {folder}: the folder does not exist.")
        self.folder = folder
        self.files = sorted(
            (
                path
                for path in folder.rglob("*")
                if path.suffix.lower() in IMAGE_SUFFIXES
                and not any(part.startswith(".") for part in path.relative_to(folder).parts)
                and path.is_file()
            ),
            key=lambda path: path.relative_to(folder).as_posix(),
        )
        if not self.files:
            raise DataError(
                f"no images in {folder}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}."
            )

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return str(self.files[index])

    def read(self, index: int) -> bytes:
        try:
            return self.files[index].read_bytes()
        except OSError as error:
            raise DataError(f"{self.files[index]}: cannot be read ({error.strerror}).") from error

    def labels(self, index: int) -> dict[str, str]:
        inside = self.files[index].relative_to(self.folder).parts
        return {"class": inside[0]} if len(inside) > 1 else {}


@dataclass(frozen=True)
class _ShardImage:
    shard: Path
    member: str
    offset: int
    size_bytes: int
    labels: dict[str, str]


class ShardSource(ImageSource):
    """webdataset shards: tar files in which `key.png` and `key.json` belong together.

    Only the headers and the JSON are read at the start; text values of the JSON are labels.

    Args:
        pattern: a path with wildcards or brace ranges, such as `data/train-{000000..000009}.tar`.

    Raises:
        DataError: if no shard matches, or one is damaged or holds no image.
    """

    def __init__(self, pattern: str) -> None:
        try:
            shards = sorted({path for part in expand_urls(pattern) for path in glob.glob(part)})
        except ValueError as error:
            raise DataError(f"{pattern}: not a pattern of shards ({error}).") from error
        if not shards:
            raise DataError(f"no data at {pattern}: no shard matches.")
        images = [image for shard in shards for image in _index_shard(Path(shard))]
        if not images:
            raise DataError(f"no images in the {len(shards)} shards of {pattern}.")
        self.images = sorted(images, key=lambda image: image.member.removeprefix("./"))

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        image = self.images[index]
        return f"{image.shard}:{image.member}"

    def read(self, index: int) -> bytes:
        image = self.images[index]
        try:
            with open(image.shard, "rb") as file:
                file.seek(image.offset)
                data = file.read(image.size_bytes)
        except OSError as error:
            raise DataError(f"{image.shard}: cannot be read ({error.strerror}).") from error
        if len(data) < image.size_bytes:
            raise DataError(f"{self.name(index)}: the shard is truncated.")
        return data

    def labels(self, index: int) -> dict[str, str]:
        return self.images[index].labels


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

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def read(self, index: int) -> bytes:
        return self.source.read(self.indices[index])

    def labels(self, index: int) -> dict[str, str]:
        return self.source.labels(self.indices[index])


def open_source(path: str, *, only: Mapping[str, Sequence[str]] | None = None) -> ImageSource:
    """Open a folder, or shards if the path names tar files.

    Args:
        path: of a folder, or a pattern of shards that ends in `.tar`.
        only: for each label field the names to keep; default: all images.

    Raises:
        DataError: if there is nothing to read.
    """
    source = ShardSource(path) if path.endswith(".tar") else FolderSource(Path(path))
    return SelectedSource(source, only) if only else source


def _index_shard(shard: Path) -> list[_ShardImage]:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, dict[str, str]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                key, suffix = base_plus_ext(member.name)  # None for hidden files
                if not member.isfile() or key is None or suffix is None:
                    continue
                if member.size > MAX_MEMBER_BYTES:
                    raise DataError(f"{shard}:{member.name} has {member.size} bytes; refused.")
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[key] = (member.name, member.offset_data, member.size)
                elif suffix == "json":
                    labels[key] = _text_values(tar.extractfile(member), f"{shard}:{member.name}")
            _check_end(tar, shard)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable tar file ({error}).") from error
    return [
        _ShardImage(shard, name, offset, size, labels.get(key, {}))
        for key, (name, offset, size) in images.items()
    ]


def _check_end(tar: tarfile.TarFile, shard: Path) -> None:
    """Refuse what `tarfile` takes for the end of the file, unless it is marked as the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{shard}: damaged or truncated after byte {tar.offset}; fetch it again.")


def _text_values(file, name: str) -> dict[str, str]:
    try:
        values = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f"{name}: expected a JSON object.")
    return {key: value for key, value in values.items() if isinstance(value, str)}
