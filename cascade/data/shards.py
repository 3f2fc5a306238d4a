"""webdataset shards, local and remote, as a source that is read by index."""

from __future__ import annotations

import glob
from collections.abc import Set
from pathlib import Path
from typing import Any

from webdataset.shardlists import expand_urls

from cascade.data.annotations import NamePattern
from cascade.data.notes import SourceNotes
from cascade.data.object_stores import list_objects
from cascade.data.remote import default_cache, fetch, is_remote, without_secrets
from cascade.data.roles import Role
from cascade.data.shard_index import ShardImage, ShardIndex, index_shard
from cascade.data.source import ImageSource
from cascade.data.stacks import volume_of
from cascade.errors import DataError
from cascade.imaging.opening import IMAGE_SUFFIXES


class ShardSource(ImageSource):
    """webdataset shards: tar files in which `key.png`, `key.json` and `key.txt` belong together.

    Opening the source reads only headers and labels; see `cascade.data.annotations`. Remote shards
    are copied once to a cache folder; see `cascade.data.remote`.

    Args:
        pattern: paths with wildcards or brace ranges, such as `data/train-{000000..000009}.tar`,
            or URLs with brace ranges or wildcards; join several with `::`.
        name_pattern: a regular expression whose named groups are labels.
        cache_dir: folder for copies of remote shards; default: the user's cache folder.
        damaged_shards: a list that receives one message per damaged shard, which is then left out.
            Default: the first damaged shard raises.
        suffixes: suffixes of the members that are images, in small letters.
        role: of pairs `key.low.png` and `key.high.png`, which of both images to read.

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
        suffixes: Set[str] = IMAGE_SUFFIXES,
        role: Role | None = None,
    ) -> None:
        shards = find_shards(pattern, cache_dir or default_cache())
        if not shards:
            raise DataError(f"no data at {pattern}: no shard matches.")
        everything = ShardIndex()
        for path, name in shards:
            try:
                index = index_shard(path, name, suffixes, role)
                _check_names(index.images)
            except DataError as error:
                if damaged_shards is None:
                    raise
                damaged_shards.append(str(error))
            else:
                everything.add(index)
        others = {kind: tuple(names) for kind, names in everything.other_members.items()}
        self.notes = SourceNotes(tuple(everything.faults), others)
        if not everything.images and not damaged_shards:
            where = f"the {len(shards)} shards of {without_secrets(pattern)}"
            raise DataError(" ".join([f"no images in {where}.", *self.notes.lines()]))
        self.images = sorted(everything.images, key=lambda image: image.member.removeprefix("./"))
        self._pattern = NamePattern(name_pattern)

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        return self.images[index].key

    def name(self, index: int) -> str:
        return self.images[index].name

    def read(self, index: int) -> bytes:
        return self.images[index].read()

    def volume(self, index: int) -> str | None:
        return volume_of(self.key(index))

    def size_bytes(self, index: int) -> int | None:
        return self.images[index].size_bytes

    def labels(self, index: int) -> dict[str, str]:
        image = self.images[index]
        if image.label_errors:
            raise DataError(image.label_errors[0])
        return self._pattern.fields(image.key) | image.labels

    def other_values(self, index: int) -> dict[str, Any]:
        return self.images[index].other_values


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
    return [(shard_file(place, cache), without_secrets(place)) for place in list_shards(pattern)]


def list_shards(pattern: str) -> list[str]:
    """Paths and URLs of the shards that match a pattern; fetches nothing.

    Args:
        pattern: paths with wildcards or brace ranges, or URLs, see `ShardSource`.

    Raises:
        DataError: if the pattern is not valid.
    """
    try:
        parts = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"{without_secrets(pattern)}: not a pattern of shards ({error})."
        ) from error
    local = sorted({path for part in parts if not is_remote(part) for path in glob.glob(part)})
    return local + sorted({url for part in parts if is_remote(part) for url in _addresses(part)})


def shard_file(place: str, cache: Path) -> Path:
    """The file of a shard, copied to the cache if it is remote.

    Raises:
        DataError: if it cannot be fetched.
    """
    return fetch(place, cache, check=index_shard) if is_remote(place) else Path(place)


def _addresses(url: str) -> list[str]:
    """The address itself, or those that match if it has a wildcard."""
    if url.startswith("pipe:") or "*" not in url:
        return [url]
    return [stored.address for stored, _ in list_objects(url)]


def _check_names(images: list[ShardImage]) -> None:
    """Refuse names that would lead out of the folder where someone unpacks the shard."""
    for image in images:
        parts = image.member.split("/")
        if not parts[0] or ".." in parts:
            raise DataError(f"{image.name}: the name leads out of the shard; rename the member.")
