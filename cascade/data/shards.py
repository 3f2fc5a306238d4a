"""webdataset shards, local and remote, read by index."""

from __future__ import annotations

import glob
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from cascade.data.annotations import NamePattern, caption, json_labels
from cascade.data.remote import default_cache, fetch, is_remote, shown
from cascade.data.source import MAX_LABELS_BYTES, MAX_MEMBER_BYTES, ImageSource, check_text
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES


@dataclass(frozen=True)
class ShardImage:
    """Where an image lies in a shard.

    Attributes:
        shard: the tar file.
        shard_name: what to call it in messages.
        member: name of the image's file in it.
        key: the same without suffix, by webdataset's rules.
        offset: of its first byte.
        size_bytes: of the image file.
        labels: that stand beside it.
        labels_broken: why a file of labels beside it cannot be read; empty if all can.
    """

    shard: Path
    shard_name: str
    member: str
    key: str
    offset: int
    size_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    labels_broken: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What to call the image in messages."""
        return f"{self.shard_name}:{self.member}"

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            DataError: if they cannot be read.
        """
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size_bytes)
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read ({error.strerror}).") from error
        if len(data) < self.size_bytes:
            raise DataError(f"{self.name}: the shard is truncated.")
        return data


class ShardSource(ImageSource):
    """webdataset shards: tar files in which `key.png`, `key.json` and `key.txt` belong together.

    Only the headers and the labels are read at the start: see `cascade.data.annotations`. A remote
    shard is copied once to a cache folder: see `cascade.data.remote`.

    Args:
        pattern: paths with wildcards or brace ranges, such as `data/train-{000000..000009}.tar`,
            or URLs with brace ranges; several are joined by `::`.
        name_pattern: a regular expression whose named groups are labels.
        cache_dir: where copies of remote shards are kept; default: the user's cache folder.
        damaged: a list to put what is wrong with damaged shards into, which are then left out;
            default: the first one is an error.

    Raises:
        DataError: if no shard matches, or one is damaged, holds no image, has a member whose name
            leads out of it, or cannot be fetched.
    """

    def __init__(
        self,
        pattern: str,
        *,
        name_pattern: str | None = None,
        cache_dir: Path | None = None,
        damaged: list[str] | None = None,
    ) -> None:
        shards = find_shards(pattern, cache_dir or default_cache())
        if not shards:
            raise DataError(f"no data at {pattern}: no shard matches.")
        images = []
        for path, name in shards:
            try:
                images += _all_inside(index_shard(path, name))
            except DataError as error:
                if damaged is None:
                    raise
                damaged.append(str(error))
        if not images and not damaged:
            raise DataError(f"no images in the {len(shards)} shards of {shown(pattern)}.")
        self.images = sorted(images, key=lambda image: image.member.removeprefix("./"))
        self._pattern = NamePattern(name_pattern)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        return self.images[index].key

    def name(self, index: int) -> str:
        return self.images[index].name

    def read(self, index: int) -> bytes:
        return self.images[index].read()

    def labels(self, index: int) -> dict[str, str]:
        image = self.images[index]
        if image.labels_broken:
            raise DataError(image.labels_broken[0])
        return self._pattern.fields(image.key) | image.labels


def find_shards(pattern: str, cache: Path) -> list[tuple[Path, str]]:
    """Find shards, and copy remote ones to the cache: each one's file and what to call it.

    Args:
        pattern: as for `ShardSource`.
        cache: folder of the copies.

    Raises:
        DataError: if it is no pattern, or a shard cannot be fetched.
    """
    try:
        parts = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        raise DataError(f"{shown(pattern)}: not a pattern of shards ({error}).") from error
    local = sorted({path for part in parts if not is_remote(part) for path in glob.glob(part)})
    urls = sorted({part for part in parts if is_remote(part)})
    copies = [(fetch(url, cache, check=index_shard), shown(url)) for url in urls]
    return [(Path(path), path) for path in local] + copies


def index_shard(shard: Path, name: str) -> list[ShardImage]:
    """Find the images of a shard and their labels.

    Args:
        shard: the tar file.
        name: of it, for messages.

    Raises:
        DataError: if it is damaged, truncated, or holds a member that is too large or sparse, or
            whose name is not UTF-8.
    """
    images: dict[str, ShardImage] = {}
    labels: dict[tuple[str, str], dict[str, str]] = {}
    broken: dict[tuple[str, str], str] = {}
    parsers = {"txt": caption, "json": json_labels}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                key, suffix = base_plus_ext(member.name)  # None for hidden files
                if not member.isfile() or key is None or suffix is None:
                    continue
                check_text(member.name, f"{name}:{member.name}")
                most = MAX_LABELS_BYTES if suffix in parsers else MAX_MEMBER_BYTES
                if member.size > most:
                    raise DataError(f"{name}:{member.name} has {member.size} bytes; refused.")
                if member.issparse():  # its bytes are not where they seem to be
                    raise DataError(f"{name}:{member.name} is a sparse file; refused.")
                place = (member.offset_data, member.size)
                if f".{suffix.lower()}" in IMAGE_SUFFIXES:
                    images[member.name] = ShardImage(shard, name, member.name, key, *place)
                elif suffix in parsers:
                    data = _member_bytes(tar, member)
                    try:
                        labels[key, suffix] = parsers[suffix](data, f"{name}:{member.name}")
                    except DataError as error:  # of that image, and not of the whole shard
                        broken[key, suffix] = str(error)
            _check_end(tar, name)
    except DataError:
        raise
    except Exception as error:  # tarfile raises many kinds on damaged headers
        raise DataError(f"{name}: not a readable tar file ({error}).") from error
    for image in images.values():
        for suffix in parsers:
            image.labels.update(labels.get((image.key, suffix), {}))
            if (image.key, suffix) in broken:
                image.labels_broken.append(broken[image.key, suffix])
    return list(images.values())


def _all_inside(images: list[ShardImage]) -> list[ShardImage]:
    """Refuse names that lead out of the folder into which somebody unpacks a shard."""
    for image in images:
        parts = image.member.split("/")
        if not parts[0] or ".." in parts:
            raise DataError(f"{image.name}: its name leads out of the shard; refused.")
    return images


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _check_end(tar: tarfile.TarFile, name: str) -> None:
    """Refuse what `tarfile` takes for the end of the file, unless it is marked as the end."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{name}: damaged or truncated after byte {tar.offset}; fetch it again.")
