"""The list of a run's images, from which a resumed run finds out what changed in its data."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cascade.data.source import ImageSource
from cascade.data.tensors import TensorSource
from cascade.errors import CascadeError
from cascade.saving.atomic import atomic_file

FILE = "images.jsonl.gz"
MAX_NAMES = 3  # in a message


class OtherImagesError(CascadeError):
    """A run resumes with images that differ from those it began with.

    Args:
        difference: what differs, in words, without full stop.
    """

    def __init__(self, difference: str) -> None:
        super().__init__(
            f"{difference}. A run resumes only with its own images; restore them, or start another "
            "run in another folder."
        )
        self.difference = difference


class ListedImage(NamedTuple):
    """One image of a run.

    Attributes:
        key: path within the source, without suffix.
        size_bytes: size of its file; None if unknown.
        partner: for pairs, path of its input within the source of the inputs; None without one.
        partner_bytes: size of that file; None if unknown.
    """

    key: str
    size_bytes: int | None
    partner: str | None = None
    partner_bytes: int | None = None

    @property
    def files(self) -> tuple[int | None, int | None]:
        """The sizes of both files in bytes."""
        return self.size_bytes, self.partner_bytes


def list_images(source: ImageSource) -> Iterator[ListedImage]:
    """List the images of a source, in order."""
    for index in range(len(source)):
        yield ListedImage(_key(source, index), source.size_bytes(index), *_partner(source, index))


def keys_digest(source: ImageSource) -> str:
    """A hash of the names of all images and of their order, which decides the order of training."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(_key(source, index).encode() + b"\0")
        partner, _ = _partner(source, index)
        digest.update(b"" if partner is None else b"of " + partner.encode() + b"\0")
    return digest.hexdigest()


def write_image_list(folder: Path, source: ImageSource) -> None:
    """Write the list into the folder of a run; images that have no names are not listed.

    Raises:
        OutputError: if it cannot be written.
    """
    if isinstance(source, TensorSource):
        return
    with (
        atomic_file(folder / FILE) as temporary,
        gzip.GzipFile(temporary, "wb", mtime=0) as file,
    ):
        for image in list_images(source):
            file.write(json.dumps(image).encode() + b"\n")


def read_image_list(folder: Path) -> list[ListedImage] | None:
    """Read the list from the folder of a run; None if it is missing or damaged."""
    try:
        with gzip.open(folder / FILE, "rt", encoding="utf-8") as file:
            return [ListedImage(*json.loads(line)) for line in file]
    except (OSError, EOFError, ValueError, TypeError, zlib.error):
        return None


def describe_difference(out: Path, count_before: int, source: ImageSource) -> str:
    """What differs between the images that a run began with and those of a source, in words.

    Args:
        out: folder of the run.
        count_before: number of images that the run began with.
        source: the images now.
    """
    counts = f"{out} was trained on {count_before:,} images, and the data now has {len(source):,}"
    listed = read_image_list(out)
    if listed is None:
        return counts if count_before != len(source) else f"{counts}, under other names"
    current = list(list_images(source))
    before, now = ([image.key for image in images] for images in (listed, current))
    changes = {"added": _missing(now, before), "removed": _missing(before, now)}
    if before == now:
        pairs = zip(listed, current, strict=True)
        changes = {"with other partners": [b.key for a, b in pairs if a.partner != b.partner]}
    texts = [f"{len(keys):,} {word} ({shortened(keys)})" for word, keys in changes.items() if keys]
    return f"{counts}: {', '.join(texts)}" if texts else f"{counts}: in another order"


def changed_images(out: Path, source: ImageSource) -> list[str]:
    """Names of the images whose files have another size than when the run's list was written.

    Args:
        out: folder of the run.
        source: the images, which have the same names as in the list.
    """
    pairs = zip(read_image_list(out) or [], list_images(source), strict=False)
    return [
        now.key
        for before, now in pairs  # two may share a key, such as a.jpg and a.png
        if any(_differ(*sizes) for sizes in zip(before.files, now.files, strict=True))
    ]


def _differ(before: int | None, now: int | None) -> bool:
    """Whether the size of a file changed; no if it is not known."""
    return None not in (before, now) and before != now


def shortened(names: Sequence[str]) -> str:
    """The first names of many, for a message: `a, b, c, …`."""
    return ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")


def _key(source: ImageSource, index: int) -> str:
    return source.key(index).removeprefix("./")  # as some shards name their members


def _partner(source: ImageSource, index: int) -> tuple[str | None, int | None]:
    """Path and size in bytes of the input of a pair."""
    partners = source.partners
    other = None if partners is None else partners.indices[index]
    if partners is None or other is None:
        return None, None
    return _key(partners.source, other), partners.source.size_bytes(other)


def _missing(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names that are more often there than among others, in order."""
    return list((Counter(names) - Counter(others)).elements())
