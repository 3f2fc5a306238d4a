"""Builds shards from any source of images: resized, deduplicated, split, with a manifest.

The order in the shards comes from a hash of the images' keys, the split from a hash of the pixels,
of a label, or of the file if that holds several images; see `cascade.data.splitting`. So the same
input always gives the same shards, and a data set that grows keeps its split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cascade.data.band_decoding import BandDecoding
from cascade.data.band_encoding import BandEncoding
from cascade.data.broken import BrokenImages
from cascade.data.checking import TASK, classes_of, count_labels
from cascade.data.earlier_builds import (
    MANIFEST,
    check_same_request,
    check_same_shards,
    earlier_build,
    own_files,
)
from cascade.data.encoding import Encoding
from cascade.data.examination import ExaminedImage, examine
from cascade.data.measured_range import measured_ranges
from cascade.data.notes import SourceNotes, check_share
from cascade.data.pair_report import PairCheck
from cascade.data.preparation import Decoding
from cascade.data.roles import Role
from cascade.data.shard_writing import ShardWriter, sha256_of
from cascade.data.shards import ShardSource
from cascade.data.source import ImageSource
from cascade.data.splitting import SPLITS, FileGroups, Shares
from cascade.errors import DataError, OutputError
from cascade.imaging.rasters.reading import RASTER_SUFFIXES
from cascade.reporting.progress import Progress
from cascade.saving.atomic import atomic_folder, check_writable_folder

WHOLE = Shares()  # everything is for training


def build_shards(
    source: ImageSource,
    out: Path,
    *,
    origin: str,
    encoding: Encoding | BandEncoding,
    decoding: BandDecoding | None = None,
    percentiles: tuple[float, float] | None = None,
    shard_mib: int = 256,
    shares: Shares = WHOLE,
    split_by: str | None = None,
    seed: int = 0,
    max_broken_share: float = 0.01,
    inputs: PairCheck | None = None,
    overwrite: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `train-NNNNNN.tar`, `validation-…`, `test-…`, and `manifest.json`.

    The folder appears only when everything is complete. If it holds an earlier build, that must
    have the same shards, unless it may be replaced.

    Args:
        source: the images.
        out: folder of the shards.
        origin: path or URL of the images, for the manifest and for messages.
        encoding: size and format of the images in the shards.
        decoding: for bands, how files are read; default: as colours, with the encoding's range.
        percentiles: for bands, the percentiles of the training split that the manifest names as
            the range of each band; None for no range.
        shard_mib: size in MiB after which a new shard begins, at least 1.
        shares: expected shares of the images, or of the groups, in each split.
        split_by: a label field; all images with the same name in it go to the same split.
        seed: whole number; another one gives another split.
        max_broken_share: largest share of broken images, in [0, 1]; see `BrokenImages`.
        inputs: for images with partners, how their files are read and encoded; both images of a
            pair keep their size.
        overwrite: whether to replace an earlier build of other images or settings.
        workers: number of processes that read and encode; 0 does both in this one.
        progress: called after each image.

    Returns:
        The manifest.

    Raises:
        DataError: if too many images are broken or labels out of step, no image has the field
            `split_by`, or a split would be empty.
        OutputError: if the folder holds other files, the shards being read, or another build that
            may not be replaced, or cannot be written.
    """
    check_writable_folder(out.parent)
    _check_not_from(source, out)
    _check_pairs(source, encoding, inputs)
    colours = Decoding(encoding.range) if isinstance(encoding, Encoding) else Decoding()
    command = source.check_command(*(decoding.check_words if decoding else ()))
    check_share(source.notes, len(source), max_broken_share, command=command)
    if split_by is not None:
        source.vocabulary([split_by])  # raises if no image has the field
    build = _Build(
        source=source,
        size_px=encoding.size_px,
        shares=shares,
        split_by=split_by,
        seed=seed,
        broken=BrokenImages(len(source), max_broken_share, command=command),
    )
    order = sorted(range(len(source)), key=lambda index: _hash(source.key(index)))
    images = examine(
        source,
        order=order,
        encode=encoding,
        decoding=decoding or colours,
        pairs=inputs,
        workers=workers,
    )
    own_settings = {"shard_mib": shard_mib, "split": shares._asdict()}
    own_settings |= {"split_by": split_by, "seed": seed}
    head: dict[str, Any] = {"source": origin, "settings": {**encoding._asdict(), **own_settings}}
    earlier = earlier_build(out)
    if not overwrite:
        check_same_request(earlier, out, head, len(source))
    pairs = zip(order, images, strict=True)
    with atomic_folder(out, owned=own_files(earlier), follow=True) as folder:
        writers = _write_shards(build, folder, pairs, shard_mib * 2**20, progress=progress)
        if not build.firsts:
            raise DataError(f"none of the {len(source)} images of {origin} can be used.")
        _check_splits(build, writers)
        manifest = {
            **head,
            **_describe(build, writers, folder),
            **_describe_notes(source.notes),
        }
        if source.partners is not None:
            manifest["pairs"] = source.partners.place
        if decoding is not None:
            role = None if source.partners is None else "high"
            manifest |= _describe_bands(folder, decoding, percentiles, role)
            manifest["missing"] = dict(sorted(build.missing.items()))
        if not overwrite:
            check_same_shards(earlier, out, manifest)
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


@dataclass(kw_only=True)
class _Build:
    """Decides to which split each image goes, and counts the written and the skipped ones."""

    source: ImageSource
    size_px: int | None
    shares: Shares
    split_by: str | None
    seed: int
    broken: BrokenImages
    keys: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, ExaminedImage] = field(default_factory=dict)  # by content
    losses: Counter[str] = field(default_factory=Counter)
    missing: dict[str, float] = field(default_factory=dict)  # share of the numbers, by image
    skipped_images: list[dict[str, str]] = field(default_factory=list)
    too_small: int = 0
    duplicates: int = 0
    file_groups: FileGroups = field(init=False)
    labels: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: {split: {} for split in SPLITS}
    )

    def __post_init__(self) -> None:
        self.file_groups = FileGroups(self.source)

    def add(self, index: int, image: ExaminedImage, writers: dict[str, ShardWriter]) -> None:
        reason = self._reason_to_skip(image)
        if reason is not None:
            self.skipped_images.append({"name": image.name, "reason": reason})
            return
        assert image.encoded is not None
        split = self._split_of(index, image)
        values = {**self.source.other_values(index), **image.labels}
        labels = json.dumps(values, ensure_ascii=False, sort_keys=True).encode()
        files = [("", image.encoded)]
        if image.pair is not None:
            files = [("high.", image.encoded), ("low.", image.pair.encoded)]
        members = [(f"{role}{file.suffix}", file.data) for role, file in files]
        writers[split].add(self._unique_key(image.key), [*members, ("json", labels)])
        self.losses.update(loss for _, file in files for loss in file.losses)
        self.missing |= {
            self._file_name(index, role): file.missing for role, file in files if file.missing > 0
        }
        count_labels(self.labels[split], image.labels)

    def _file_name(self, index: int, role: str) -> str:
        """The name of an image, or of its input, for messages."""
        partners = self.source.partners
        if role != "low." or partners is None:
            return self.source.name(index)
        return partners.source.name(partners.index_of(index, self.source.name(index)))

    def _reason_to_skip(self, image: ExaminedImage) -> str | None:
        if image.broken is not None:
            self.broken.add([image.broken])
            return image.broken.removeprefix(f"{image.name}: ")
        if self.size_px is not None and image.short_px < self.size_px:
            self.too_small += 1
            return f"{image.width_px}x{image.height_px} px is too small"
        light = image._replace(encoded=None, pair=None, thumbnail=None)  # many are kept
        first = self.firsts.setdefault(image.whole_content, light)
        if first.name != image.name:
            self.duplicates += 1
            other_labels = "" if first.labels == image.labels else ", but other labels"
            return f"has the same pixels as {first.name}{other_labels}"
        return None

    def _split_of(self, index: int, image: ExaminedImage) -> str:
        group = image.labels.get(self.split_by or "")
        group = group or self.file_groups.group_of(index) or image.content
        return self.shares.split_of(group, self.seed)

    def _unique_key(self, key: str) -> str:
        """Make a new key without dots in its last part, because webdataset ends a key at a dot."""
        folder, slash, last = key.removeprefix("./").rpartition("/")
        key = folder + slash + last.replace(".", "_")
        self.keys[key] += 1
        return key if self.keys[key] == 1 else self._unique_key(f"{key}-{self.keys[key]}")


def _write_shards(
    build: _Build,
    folder: Path,
    images: Iterable[tuple[int, ExaminedImage]],
    shard_bytes: int,
    *,
    progress: Progress | None,
) -> dict[str, ShardWriter]:
    """Write all images, with their indices, into shards; returns the closed writers."""
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(ShardWriter(folder, split, shard_bytes)) for split in SPLITS
        }
        for number, (index, image) in enumerate(images, start=1):
            build.add(index, image, writers)
            if progress is not None:
                progress(TASK, number, len(build.source))
    return writers


def _check_splits(build: _Build, writers: dict[str, ShardWriter]) -> None:
    """Check that every split with a share got images."""
    for name, share in build.shares._asdict().items():
        if share > 0 and not writers[name].images_per_shard:
            unit = "images" if build.split_by is None else f"names of {build.split_by!r}"
            raise DataError(
                f"a share of {share:g} of the {unit} leaves no images for {name}; add images, or "
                "change the shares or the seed."
            )


def _describe(build: _Build, writers: dict[str, ShardWriter], folder: Path) -> dict[str, Any]:
    counts = {split: sum(writers[split].images_per_shard.values()) for split in SPLITS}
    classes = {split: classes_of(labels) for split, labels in build.labels.items()}
    return {
        "counts": {
            **counts,
            "broken": len(build.broken.names),
            "too_small": build.too_small,
            "duplicates": build.duplicates,
        },
        "labels": {
            split: {name: dict(sorted(names.items())) for name, names in fields.items()}
            for split, fields in classes.items()
        },
        "shards": {
            name: {"images": images, "sha256": sha256_of(folder / name)}
            for writer in writers.values()
            for name, images in writer.images_per_shard.items()
        },
        "skipped": build.skipped_images,
        "losses": dict(sorted(build.losses.items())),
    }


def _describe_bands(
    folder: Path,
    decoding: BandDecoding,
    percentiles: tuple[float, float] | None,
    role: Role | None,
) -> dict[str, Any]:
    """The number of bands, and their range in the training split if it is measured."""
    if percentiles is None:
        return {"bands": decoding.bands}
    source = ShardSource(str(folder / f"{SPLITS[0]}-*.tar"), suffixes=RASTER_SUFFIXES, role=role)
    ranges = measured_ranges(source, decoding, percentiles)
    return {"bands": decoding.bands, "percentiles": list(percentiles), "range": ranges}


def _describe_notes(notes: SourceNotes) -> dict[str, Any]:
    faults: dict[str, list[str]] = {}
    for fault in notes.faults:
        faults.setdefault(fault.kind.many, []).append(str(fault))
    others = {kind: len(paths) for kind, paths in notes.other_files.items() if paths}
    return {"faults": faults, "other_files": others}


def _check_not_from(source: ImageSource, out: Path) -> None:
    """Refuse to replace the source: it may be one split, and both splits are replaced."""
    shards = {image.shard for image in source.images} if isinstance(source, ShardSource) else set()
    if any(shard.resolve().parent == out.resolve() for shard in shards):
        raise OutputError(f"{out} holds the shards being read; choose another folder.")


def _check_pairs(
    source: ImageSource, encoding: Encoding | BandEncoding, inputs: PairCheck | None
) -> None:
    """Check that both images of pairs are written, at their own size.

    Raises:
        DataError: if they are not.
    """
    if (source.partners is None) != (inputs is None):
        raise DataError("inputs are needed for images with partners, and only for those.")
    if inputs is not None and (encoding.size_px is not None or encoding.square):
        raise DataError("images of pairs keep their size; leave the size and the square out.")


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
