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
from cascade.data.training_images import TrainingImages
from cascade.errors import CascadeError
from cascade.reporting.words import counted
from cascade.saving.atomic import atomic_file

FILE = "images.jsonl.gz"
MAX_NAMES = 3  # in a message


class OtherImagesError(CascadeError):
    """A run resumes with images or labels that differ from those it began with.

    Args:
        difference: what differs, in words, without full stop.
    """

    def __init__(self, difference: str) -> None:
        super().__init__(
            f"{difference}. A run resumes only with its own images and labels; restore them, or "
            "start another run in another folder."
        )
        self.difference = difference


class ListedImage(NamedTuple):
    """One image of a run.

    Attributes:
        key: path within the source, without suffix.
        size_bytes: size of its file; None if unknown.
        partner: for pairs, path of its input within the source of the inputs; None without one.
        partner_bytes: size of that file; None if unknown.
        labels: hash of those of its labels that the stage reads; empty if it reads none.
    """

    key: str
    size_bytes: int | None
    partner: str | None = None
    partner_bytes: int | None = None
    labels: str = ""

    @property
    def files(self) -> tuple[int | None, int | None]:
        """The sizes of both files in bytes."""
        return self.size_bytes, self.partner_bytes


def list_images(source: ImageSource, fields: Sequence[str] = ()) -> Iterator[ListedImage]:
    """List the images of a source, in order.

    Args:
        source: the images.
        fields: the label fields that the stage reads.
    """
    hashes = label_hashes(source, fields)
    for index, labels in zip(range(len(source)), hashes, strict=True):
        size_bytes, partner = source.size_bytes(index), _partner(source, index)
        yield ListedImage(_key(source, index), size_bytes, *partner, labels)


def fields_read(images: TrainingImages) -> list[str]:
    """The label fields that a stage reads, captions among them; none for a data set of tensors."""
    if isinstance(images.source, TensorSource):  # its labels come with the images
        return []
    conditions = images.contract.conditions
    return sorted({field for each in conditions for field in each.annotation_fields})


def label_hashes(source: ImageSource, fields: Sequence[str]) -> Iterator[str]:
    """For each image, a hash of its labels in some fields; empty without fields."""
    for index in range(len(source)):
        if not fields:
            yield ""
            continue
        labels = source.readable_labels(index)
        text = json.dumps([labels.get(field) for field in fields])
        yield hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def labels_digest(source: ImageSource, fields: Sequence[str]) -> str:
    """A hash of the labels of all images in some fields; empty without fields."""
    if not fields:
        return ""
    return hashlib.sha256("".join(label_hashes(source, fields)).encode()).hexdigest()


def keys_digest(source: ImageSource) -> str:
    """A hash of the names of all images and of their order, which decides the order of training.

    Tensors have no names; instead, the contents of some count.
    """
    digest = hashlib.sha256()
    if isinstance(source, TensorSource):
        digest.update(source.contents_digest().encode())
    for index in range(len(source)):
        digest.update(_key(source, index).encode() + b"\0")
        partner, _ = _partner(source, index)
        digest.update(b"" if partner is None else b"of " + partner.encode() + b"\0")
    return digest.hexdigest()


def write_image_list(folder: Path, images: TrainingImages) -> None:
    """Write the list into the folder of a run; images that have no names are not listed.

    Raises:
        OutputError: if it cannot be written.
    """
    if isinstance(images.source, TensorSource):
        return
    with (
        atomic_file(folder / FILE) as temporary,
        gzip.GzipFile(temporary, "wb", mtime=0) as file,
    ):
        for image in list_images(images.source, fields_read(images)):
            file.write(json.dumps(image).encode() + b"\n")


def read_image_list(folder: Path) -> list[ListedImage] | None:
    """Read the list from the folder of a run; None if it is missing or damaged."""
    try:
        with gzip.open(folder / FILE, "rt", encoding="utf-8") as file:
            return [ListedImage(*json.loads(line)) for line in file]
    except (OSError, EOFError, ValueError, TypeError, zlib.error):
        return None


def has_no_names(folder: Path, source: ImageSource) -> bool:
    """Whether neither a source nor the images that a run began with have names to compare."""
    return isinstance(source, TensorSource) and not (folder / FILE).is_file()


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


def describe_changed_labels(out: Path, images: TrainingImages) -> str:
    """Which images have other labels than when a run began, in words.

    Args:
        out: folder of the run.
        images: the images of the run, with the labels that they have now.
    """
    fields, listed = fields_read(images), read_image_list(out) or []
    pairs = zip(listed, list_images(images.source, fields), strict=False)
    changed = [now.key for before, now in pairs if before.labels != now.labels]
    which = f": {counted(len(changed), 'image')} changed ({shortened(changed)})" if changed else ""
    return f"{out} was trained with other labels ({', '.join(fields)}){which}"


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
