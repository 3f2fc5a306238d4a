"""Making shards from any source of images: resized, without duplicates, split, with a manifest.

The order in the shards comes from a hash of the images' keys, the split from a hash of the pixels
or of a label, so the same input gives the same shards, and a set that grows keeps its split.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image
from torch import Tensor

from cascade.data.broken import BrokenImages
from cascade.data.checking import classes_of, count_labels
from cascade.data.examination import EncodedImage, Examined, examine
from cascade.data.shard_writing import ShardWriter, sha256_of
from cascade.data.shards import ShardSource
from cascade.data.source import ImageSource
from cascade.errors import DataError, OutputError
from cascade.imaging.opening import IMAGE_FORMATS
from cascade.imaging.writing import to_pil
from cascade.resizing import resize
from cascade.saving.atomic import atomic_folder

ImageFormat = Literal["png", "jpg", "webp"]
SPLITS = ("train", "heldout")
MANIFEST = "manifest.json"
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG"},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}


class Encoding(NamedTuple):
    """How images are written.

    Attributes:
        size_px: of the shorter side, shrunk with an antialiased kernel; None keeps the size.
        square: whether the middle square is cut out.
        image_format: None keeps files whose pixels stay, and makes PNG of the others.
    """

    size_px: int | None = None
    square: bool = False
    image_format: ImageFormat | None = None

    def __call__(self, image: Tensor, data: bytes) -> EncodedImage:
        """Encode an image (3, H, W) in [-1, 1] that was decoded from a file.

        Raises:
            DataError: if it is too large for the format.
        """
        if self == Encoding():
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as file:
                suffix = str(file.format).lower().replace("jpeg", "jpg")
            return EncodedImage(suffix, data)
        if self.square:
            image = _middle_square(image)
        height, width = image.shape[-2:]
        short = min(height, width)
        if self.size_px is not None and self.size_px < short:
            size = (round(height * self.size_px / short), round(width * self.size_px / short))
            image = resize(image[None], size, "bicubic")[0]
        file = io.BytesIO()
        suffix = self.image_format or "png"
        try:
            to_pil(image[None])[0].save(file, **SAVE_OPTIONS[suffix])
        except (OSError, ValueError) as error:  # JPEG and WebP have a largest side
            height, width = image.shape[-2:]
            raise DataError(
                f"{width}x{height} px cannot be saved as {suffix} ({error})."
            ) from error
        return EncodedImage(suffix, file.getvalue())


def _middle_square(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return image[:, top : top + short, left : left + short]


@dataclass(kw_only=True)
class _Build:
    """What has been written and left out so far."""

    encoding: Encoding
    holdout: float
    split_by: str | None
    broken: BrokenImages
    keys: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    too_small: int = 0
    duplicates: int = 0
    labels: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: {split: {} for split in SPLITS}
    )

    def take(self, image: Examined, writers: dict[str, ShardWriter]) -> None:
        reason = self._why_not(image)
        if reason is not None:
            self.skipped.append({"name": image.name, "reason": reason})
            return
        assert image.encoded is not None
        split = self._split_of(image)
        labels = json.dumps(image.labels, ensure_ascii=False, sort_keys=True).encode()
        members = [(image.encoded.suffix, image.encoded.data), ("json", labels)]
        writers[split].add(self._unique_key(image.key), members)
        count_labels(self.labels[split], image.labels)

    def _why_not(self, image: Examined) -> str | None:
        if image.broken is not None:
            self.broken.add([image.broken])
            return image.broken.removeprefix(f"{image.name}: ")
        if self.encoding.size_px is not None and image.short_px < self.encoding.size_px:
            self.too_small += 1
            return f"{image.width_px}x{image.height_px} px is too small"
        if self.first.setdefault(image.content, image.name) != image.name:
            self.duplicates += 1
            return f"has the pixels of {self.first[image.content]}"
        return None

    def _split_of(self, image: Examined) -> str:
        group = image.labels.get(self.split_by or "", image.content)
        number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
        return "heldout" if number < self.holdout * 2**64 else "train"

    def _unique_key(self, key: str) -> str:
        """webdataset ends a key at the first dot of its last part."""
        folder, slash, last = key.removeprefix("./").rpartition("/")
        key = folder + slash + last.replace(".", "_")
        self.keys[key] += 1
        return key if self.keys[key] == 1 else self._unique_key(f"{key}-{self.keys[key]}")


def build_shards(
    source: ImageSource,
    out: Path,
    *,
    origin: str,
    encoding: Encoding,
    shard_mib: int = 256,
    holdout: float = 0.0,
    split_by: str | None = None,
    max_broken_share: float = 0.01,
    workers: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write `train-NNNNNN.tar`, `heldout-NNNNNN.tar` and `manifest.json`.

    The folder appears when all is complete; shards of an earlier build in it are replaced.

    Args:
        source: of the images.
        out: folder of the shards.
        origin: of the images, for the manifest.
        encoding: of the images.
        shard_mib: after how much the next shard begins.
        holdout: share of the images, or groups, that is kept apart, in [0, 1).
        split_by: a label field; all images with one of its names are on the same side.
        max_broken_share: of the images that may be broken, see `BrokenImages`.
        workers: processes that read and encode.
        report: called with how many images were read, of how many.

    Returns:
        The manifest.

    Raises:
        DataError: if too many images are broken, or none has the field `split_by`.
        OutputError: if the folder holds other things, or the shards that are read, or cannot be
            written.
    """
    _check_not_from(source, out)
    if split_by is not None:
        source.vocabulary([split_by])
    order = sorted(range(len(source)), key=lambda index: _hash(source.key(index)))
    broken = BrokenImages(len(source), max_broken_share)
    build = _Build(encoding=encoding, holdout=holdout, split_by=split_by, broken=broken)
    with atomic_folder(out, owned=_own_files(out)) as folder:
        with ExitStack() as open_shards:
            writers = {
                split: open_shards.enter_context(ShardWriter(folder, split, shard_mib * 2**20))
                for split in SPLITS
            }
            images = examine(source, order=order, encode=encoding, workers=workers)
            for number, image in enumerate(images, start=1):
                build.take(image, writers)
                if report is not None:
                    report(number, len(source))
        if not build.first:
            raise DataError(f"none of the {len(source)} images of {origin} can be used.")
        settings = {
            **encoding._asdict(),
            "shard_mib": shard_mib,
            "holdout": holdout,
            "split_by": split_by,
        }
        manifest = {"source": origin, "settings": settings, **_describe(build, writers, folder)}
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def _describe(build: _Build, writers: dict[str, ShardWriter], folder: Path) -> dict[str, Any]:
    counts = {split: sum(writers[split].images_per_shard.values()) for split in SPLITS}
    return {
        "counts": {
            **counts,
            "broken": len(build.broken.names),
            "too_small": build.too_small,
            "duplicates": build.duplicates,
        },
        "labels": {
            split: {name: dict(sorted(names.items())) for name, names in classes_of(found).items()}
            for split, found in build.labels.items()
        },
        "shards": {
            name: {"images": images, "sha256": sha256_of(folder / name)}
            for writer in writers.values()
            for name, images in writer.images_per_shard.items()
        },
        "skipped": build.skipped,
    }


def _check_not_from(source: ImageSource, out: Path) -> None:
    """Shards of both splits are replaced, of which the source may be one only."""
    shards = {image.shard for image in source.images} if isinstance(source, ShardSource) else set()
    if any(shard.resolve().parent == out.resolve() for shard in shards):
        raise OutputError(f"{out} holds the shards that are read; choose another folder.")


def _own_files(out: Path) -> set[str]:
    """What an earlier build wrote, by its manifest."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        return {MANIFEST, *manifest["shards"]} if "skipped" in manifest else set()
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{out / MANIFEST} is not of a build; choose another folder.") from error


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
