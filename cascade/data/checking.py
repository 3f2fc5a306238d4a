"""Checks a data set before training: broken images, sizes, duplicates and labels."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cascade.data.band_decoding import BandDecoding
from cascade.data.contents import Contents
from cascade.data.examination import ExaminedImage, examine
from cascade.data.fitting import KnownCheck
from cascade.data.overlap import Look
from cascade.data.pair_report import PairCheck, PairReport
from cascade.data.preparation import Decoding
from cascade.data.source import ImageSource
from cascade.imaging.value_range import ALMOST_NO_CONTRAST
from cascade.reporting.progress import Progress
from cascade.reporting.words import counted

MAX_CLASSES = 1000  # a field with more names is free text, such as a caption
CAPTIONS = {"caption", "captions"}
NAMED_CLASSES = 10
NAMED_IMAGES = 3
TASK = "reading images"
OF_FILE = re.compile(r"(.+)#(\d+)(: .*)")  # a line about one of several images of a file


@dataclass(kw_only=True)
class DataReport:
    """The result of reading every image of a data set once.

    Attributes:
        images: number of images.
        broken: one `name: reason` per image that cannot be read.
        too_small: one `name: WxH px` per image with a side below the requested size.
        duplicates: pairs of names: an image, and an earlier image with the same pixels, and
            the same input if they are pairs.
        unlabelled: the label fields, captions aside, that an image lacks but others have, by its
            name.
        uncaptioned: names of the images that have no caption; empty if none has one.
        labels: number of images per class, by field; fields of free text are left out.
        sizes_px: number of images by (width, height).
        contents: formats, modes, pages and numbers in use.
        pairs: scales of pairs, and the shifts between their images.
        looks: what the readable images look like, if that was asked for.
    """

    images: int
    broken: list[str] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: dict[str, list[str]] = field(default_factory=dict)
    uncaptioned: list[str] = field(default_factory=list)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    sizes_px: Counter[tuple[int, int]] = field(default_factory=Counter)
    contents: Contents = field(default_factory=Contents)
    pairs: PairReport = field(default_factory=PairReport)
    looks: list[Look] = field(default_factory=list)

    def lines(self, *, advice: str = "", verbose: bool = False, hint: str = "") -> list[str]:
        """The report as text: one line per problem, then classes, facts, warnings and totals.

        Args:
            advice: see `warnings`.
            verbose: whether to name every class, and every truncated or clipped image that was
                used.
            hint: added to lines that count these instead, such as `; --verbose lists them`.
        """
        problems = self.broken_lines(verbose=verbose)
        problems += [f"shifted: {line}" for line in self.pairs.shifted]
        too_small = self.too_small if verbose else _by_file(self.too_small)
        problems += [f"too small: {line}" for line in too_small]
        problems += [
            f"duplicate: {name} has the same pixels as {other}" for name, other in self.duplicates
        ]
        problems += self.contents.remarks_by_image() if verbose else []
        warnings = [f"warning: {line}" for line in self.warnings(advice, "" if verbose else hint)]
        totals = (
            f"{self.images} images, {len(self.broken)} broken, {len(self.too_small)} too small, "
            f"{len(self.duplicates)} duplicated"
        )
        facts = self.facts(verbose=verbose, hint=hint)
        return [*problems, *aligned(facts), *warnings, totals]

    def broken_lines(self, *, verbose: bool = False) -> list[str]:
        """One line per image that cannot be read, or per file with images of the same fault.

        Args:
            verbose: whether each image has a line of its own.
        """
        return [f"broken: {line}" for line in (self.broken if verbose else _by_file(self.broken))]

    def warnings(self, advice: str = "", hint: str = "") -> list[str]:
        """What a user should know about the numbers in use and about truncated files.

        Args:
            advice: see `narrow_warnings`.
            hint: see `lines`.
        """
        return [*self.contents.remarks(hint), *self.narrow_warnings(advice)]

    def narrow_warnings(self, advice: str = "") -> list[str]:
        """One line per bit depth of which little is used.

        Args:
            advice: appended to each; `{low}` and `{high}` in it stand for the numbers in use.
        """
        text = f", so they have {ALMOST_NO_CONTRAST}{advice}"
        ranges = self.contents.narrow_ranges()
        return [f"{each}{text.format(low=each.low, high=each.high)}" for each in ranges]

    def facts(self, *, verbose: bool = False, hint: str = "") -> dict[str, str]:
        """Classes, formats, modes, pages, numbers in use and sizes as text, by name.

        Args:
            verbose: whether to name every class, instead of the most common ones.
            hint: see `lines`.
        """
        most = MAX_CLASSES if verbose else NAMED_CLASSES
        facts = {name: _listing(names, most, hint) for name, names in self.labels.items()}
        if self.uncaptioned:
            named = ", ".join(self.uncaptioned[:NAMED_IMAGES])
            more = ", …" if len(self.uncaptioned) > NAMED_IMAGES else ""
            facts["without caption"] = f"{counted(len(self.uncaptioned), 'image')}: {named}{more}"
        facts |= self.contents.facts() | self.pairs.facts()
        if self.sizes_px:
            facts["sizes"] = self._sizes()
        return facts

    def _sizes(self) -> str:
        short = sorted(min(size) for size in self.sizes_px.elements())
        (width, height), count = self.sizes_px.most_common(1)[0]
        return (
            f"shorter side {short[0]} to {short[-1]} px, median {short[len(short) // 2]}; "
            f"most common {width}x{height} ({count})"
        )


def _listing(names: Counter[str], most: int, hint: str) -> str:
    """The most common classes with their numbers of images: `30 classes: cat 9, dog 7, …`."""
    text = ", ".join(f"{name} {count}" for name, count in names.most_common(most))
    return text if len(names) <= most else f"{len(names)} classes: {text}, …{hint}"


def _by_file(lines: Sequence[str]) -> list[str]:
    """Lines about images, of which those of one file with the same words become one.

    `scan.nii#1: 9x9 px` to `scan.nii#60: 9x9 px` become `scan.nii#1 to #60: 9x9 px`.
    """
    joined: list[str] = []
    for _, group in itertools.groupby(lines, key=_without_number):
        own = list(group)
        first, last = (OF_FILE.fullmatch(line) for line in (own[0], own[-1]))
        if len(own) == 1 or first is None or last is None:
            joined += own
        else:
            joined.append(f"{first[1]}#{first[2]} to #{last[2]}{first[3]}")
    return joined


def _without_number(line: str) -> str:
    match = OF_FILE.fullmatch(line)
    return line if match is None else match[1] + match[3]


def aligned(facts: Mapping[str, str]) -> list[str]:
    """Names and texts in two columns, one pair a line."""
    width = max(map(len, facts), default=0) + 1
    return [f"{name + ':':{width}} {text}" for name, text in facts.items()]


def check_images(
    source: ImageSource,
    *,
    size_px: int | None = None,
    order: Sequence[int] | None = None,
    decoding: Decoding | BandDecoding | None = None,
    duplicates: bool = True,
    pairs: PairCheck | None = None,
    known: KnownCheck | None = None,
    looks: bool = False,
    all_pages: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
) -> DataReport:
    """Read images once and report what is wrong with the data set and what it contains.

    Args:
        source: the images to check.
        size_px: resolution of the stage to be trained; images with a smaller side are reported.
            Default: no image is too small.
        order: indices of the images to read; default: all.
        decoding: how files become images; default: by all their numbers, truncated ones refused.
        duplicates: whether to compare the pixels of all images, which takes time.
        pairs: for images with partners, what is expected of the pairs; None to read no partners.
        known: for bands, what images with missing values must keep when they are resized; None to
            resize none.
        looks: whether to keep what every image looks like, for comparison with another set; it
            needs `duplicates`, and about 300 bytes an image.
        all_pages: whether to read the pages and frames behind the first of a file too, which are
            not used, to warn of damaged ones.
        workers: number of processes that read images; 0 reads in this one.
        progress: called after each image.
    """
    order = range(len(source)) if order is None else order
    decoding = decoding or Decoding()
    limits = decoding.range if isinstance(decoding, Decoding) else None
    report = DataReport(images=len(order), contents=Contents(limits=limits))
    report.pairs.max_shift_px = None if pairs is None else pairs.max_shift_px
    first_names: dict[str, str] = {}
    images = examine(
        source,
        order=order,
        decoding=decoding,
        digest=duplicates,
        pairs=pairs,
        known=known,
        all_pages=all_pages,
        workers=workers,
    )
    fields: dict[str, frozenset[str]] = {}  # with a label, by name of the image
    for number, image in enumerate(images, start=1):
        if image.broken is not None:
            report.broken.append(image.broken)
        else:
            fields[image.name] = frozenset(image.labels)
            _record(report, image, first_names, size_px)
            if looks:
                report.looks.append(Look(image.name, image.content, image.thumbnail))
        if progress is not None:
            progress(TASK, number, len(order))
    if CAPTIONS & report.labels.keys():
        report.uncaptioned = [name for name, own in fields.items() if not CAPTIONS & own]
    classes = report.labels.keys() - CAPTIONS
    missing = {name: sorted(classes - labelled) for name, labelled in fields.items()}
    report.unlabelled = {name: fields for name, fields in missing.items() if fields}
    report.labels = classes_of(report.labels)
    return report


def _record(
    report: DataReport, image: ExaminedImage, first_names: dict[str, str], size_px: int | None
) -> None:
    """Add one readable image to the report; `first_names` holds the first image by content."""
    report.sizes_px[image.width_px, image.height_px] += 1
    count_labels(report.labels, image.labels)
    if image.facts is not None and image.values is not None:
        report.contents.add(image.name, image.facts, image.values)
    if image.pair is not None:
        report.pairs.add(image.name, image.pair)
    if size_px is not None and image.short_px < size_px:
        report.too_small.append(f"{image.name}: {image.width_px}x{image.height_px} px")
    content = image.whole_content if image.content else ""
    first = first_names.setdefault(content, image.name) if content else image.name
    if first != image.name:
        report.duplicates.append((image.name, first))


def count_labels(counts: dict[str, Counter[str]], labels: dict[str, str]) -> None:
    """Add one image's labels to the counts by field."""
    for name, text in labels.items():
        counts.setdefault(name, Counter())[text] += 1


def classes_of(counts: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Keep the fields that are classes: no captions, and at most `MAX_CLASSES` names."""
    return {
        name: names
        for name, names in sorted(counts.items())
        if name not in CAPTIONS and len(names) <= MAX_CLASSES
    }
