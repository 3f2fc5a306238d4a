"""webdataset shards, local and remote, as a source that is read by index."""

from __future__ import annotations

import glob
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from cascade.data.annotations import NamePattern, caption, json_labels
from cascade.data.remote import default_cache, fetch, is_remote, without_secrets
from cascade.data.source import MAX_LABELS_BYTES, MAX_MEMBER_BYTES, ImageSource, check_text
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES

LABEL_PARSERS = {"txt": caption, "json": json_labels}  # the later one wins


@dataclass(frozen=True)
class ShardImage:
    """Where an image lies in a shard, and its labels.

    Attributes:
        shard: the tar file.
        shard_name: name of the shard for messages.
        member: name of the image file within the shard.
        key: name of the member without suffix, by webdataset's rules.
        offset: position of the image's first byte in the tar file.
        size_bytes: size of the image file.
        labels: class names or captions, by field.
        label_errors: one message per file of labels that cannot be read.
    """

    shard: Path
    shard_name: str
    member: str
    key: str
    offset: int
    size_bytes: int
    labels: dict[str, str] = field(default_factory=dict)
    label_errors: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the image for messages."""
        return f"{self.shard_name}:{self.member}"

    def read(self) -> bytes:
        """Read the image file.

        Raises:
            DataError: if it cannot be read.
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

    Opening the source reads only headers and labels; see `cascade.data.annotations`. Remote shards
    are copied once to a cache folder; see `cascade.data.remote`.

    Args:
        pattern: paths with wildcards or brace ranges, such as `data/train-{000000..000009}.tar`,
            or URLs with brace ranges; join several with `::`.
        name_pattern: a regular expression whose named groups are labels.
        cache_dir: folder for copies of remote shards; default: the user's cache folder.
        damaged_shards: a list that receives one message per damaged shard, which is then left out.
            Default: the first damaged shard raises.

    Raises:
        DataError: if no shard matches; or one is damaged, cannot be fetched, or has a member whose
            name leads out of the shard; or there is no image.
    """

    def __init__(
        self,
        pattern: str,
        *,
        name_pattern: str | None = None,
        cache_dir: Path | None = None,
        damaged_shards: list[str] | None = None,
    ) -> None:
        shards = find_shards(pattern, cache_dir or default_cache())
        if not shards:
            raise DataError(f"no data at {pattern}: no shard matches.")
        images = []
        for path, name in shards:
            try:
                images += _check_names(index_shard(path, name))
            except DataError as error:
                if damaged_shards is None:
                    raise
                damaged_shards.append(str(error))
        if not images and not damaged_shards:
            raise DataError(f"no images in the {len(shards)} shards of {without_secrets(pattern)}.")
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

    def size_bytes(self, index: int) -> int | None:
        return self.images[index].size_bytes

    def labels(self, index: int) -> dict[str, str]:
        image = self.images[index]
        if image.label_errors:
            raise DataError(image.label_errors[0])
        return self._pattern.fields(image.key) | image.labels


def find_shards(pattern: str, cache: Path) -> list[tuple[Path, str]]:
    """Find the shards that match a pattern, copying remote ones to the cache.

    Args:
        pattern: paths with wildcards or brace ranges, or URLs, see `ShardSource`.
        cache: folder for copies of remote shards.

    Returns:
        File and name for messages of each shard.

    Raises:
        DataError: if the pattern is not valid or a shard cannot be fetched.
    """
    try:
        parts = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"{without_secrets(pattern)}: not a pattern of shards ({error})."
        ) from error
    local = sorted({path for part in parts if not is_remote(part) for path in glob.glob(part)})
    urls = sorted({part for part in parts if is_remote(part)})
    copies = [(fetch(url, cache, check=index_shard), without_secrets(url)) for url in urls]
    return [(Path(path), path) for path in local] + copies


def index_shard(shard: Path, name: str) -> list[ShardImage]:
    """List the images of a shard with their labels.

    Args:
        shard: the tar file.
        name: name of the shard for messages.

    Raises:
        DataError: if the shard is damaged or truncated, or a member is sparse, too large, or has a
            name that is not UTF-8.
    """
    index = _Index(shard, name)
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                index.add(tar, member)
            _check_end(tar, name)
    except DataError:
        raise
    except Exception as error:  # tarfile raises many kinds on damaged headers
        raise DataError(f"{name}: not a readable tar file ({error}).") from error
    return index.images()


class _Index:
    """Collects images and labels of one shard, in whatever order its members come."""

    def __init__(self, shard: Path, name: str) -> None:
        self.shard = shard
        self.name = name
        self._images: dict[str, ShardImage] = {}
        self._labels: dict[tuple[str, str], dict[str, str]] = {}  # by key and suffix
        self._label_errors: dict[tuple[str, str], str] = {}

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        key, suffix = base_plus_ext(member.name)  # None for hidden files
        if not member.isfile() or key is None or suffix is None:
            return
        name = f"{self.name}:{member.name}"
        _check_member(member, suffix, name)
        if f".{suffix.lower()}" in IMAGE_SUFFIXES:
            place = (member.offset_data, member.size)
            self._images[member.name] = ShardImage(self.shard, self.name, member.name, key, *place)
        elif suffix in LABEL_PARSERS:
            data = _member_bytes(tar, member)
            try:
                self._labels[key, suffix] = LABEL_PARSERS[suffix](data, name)
            except DataError as error:  # only this image is broken, not the whole shard
                self._label_errors[key, suffix] = str(error)

    def images(self) -> list[ShardImage]:
        for image in self._images.values():
            for suffix in LABEL_PARSERS:
                image.labels.update(self._labels.get((image.key, suffix), {}))
                if (image.key, suffix) in self._label_errors:
                    image.label_errors.append(self._label_errors[image.key, suffix])
        return list(self._images.values())


def _check_member(member: tarfile.TarInfo, suffix: str, name: str) -> None:
    check_text(member.name, name)
    limit = MAX_LABELS_BYTES if suffix in LABEL_PARSERS else MAX_MEMBER_BYTES
    if member.size > limit:
        raise DataError(f"{name} has {member.size} bytes; at most {limit} are allowed.")
    if member.issparse():  # the bytes are not where the header says
        raise DataError(f"{name} is a sparse file, which is not supported.")


def _check_names(images: list[ShardImage]) -> list[ShardImage]:
    """Refuse names that would lead out of the folder where someone unpacks the shard."""
    for image in images:
        parts = image.member.split("/")
        if not parts[0] or ".." in parts:
            raise DataError(f"{image.name}: the name leads out of the shard; rename the member.")
    return images


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _check_end(tar: tarfile.TarFile, name: str) -> None:
    """Check for the end mark where `tarfile` stopped: it also stops silently at damaged headers."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{name}: damaged or truncated after byte {tar.offset}; fetch it again.")
