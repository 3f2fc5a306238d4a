"""Checks a data set before training: broken images, sizes, duplicates and labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cascade.data.examination import ExaminedImage, examine
from cascade.data.source import ImageSource
from cascade.reporting.progress import Progress

MAX_CLASSES = 1000  # a field with more names is free text, such as a caption
TASK = "reading images"


@dataclass(kw_only=True)
class DataReport:
    """The result of reading every image of a data set once.

    Attributes:
        images: number of images.
        broken: one `name: reason` per image that cannot be read.
        too_small: one `name: WxH px` per image with a side below the requested size.
        duplicates: pairs of names: an image, and an earlier image with the same pixels.
        unlabelled: the label fields that an image lacks but others have, by its name.
        labels: number of images per class, by field; fields of free text are left out.
        sizes_px: number of images by (width, height).
    """

    images: int
    broken: list[str] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    unlabelled: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    sizes_px: Counter[tuple[int, int]] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The report as text: one line per problem, then classes, sizes and totals."""
        problems = [f"broken: {line}" for line in self.broken]
        problems += [f"too small: {line}" for line in self.too_small]
        problems += [
            f"duplicate: {name} has the same pixels as {other}" for name, other in self.duplicates
        ]
        classes = [
            f"{name}: " + ", ".join(f"{text} {count}" for text, count in names.most_common())
            for name, names in self.labels.items()
        ]
        totals = (
            f"{self.images} images, {len(self.broken)} broken, {len(self.too_small)} too small, "
            f"{len(self.duplicates)} duplicated"
        )
        return [*problems, *classes, *self._sizes(), totals]

    def _sizes(self) -> list[str]:
        if not self.sizes_px:
            return []
        short = sorted(min(size) for size in self.sizes_px.elements())
        (width, height), count = self.sizes_px.most_common(1)[0]
        return [
            f"sizes: shorter side {short[0]} to {short[-1]} px, median {short[len(short) // 2]}; "
            f"most common {width}x{height} ({count})"
        ]


def check_images(
    source: ImageSource,
    *,
    size_px: int | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> DataReport:
    """Read every image once and report what is wrong with the data set and what it contains.

    Args:
        source: the images to check.
        size_px: resolution of the stage to be trained; images with a smaller side are reported.
            Default: no image is too small.
        workers: number of processes that read images; 0 reads in this one.
        progress: called after each image.
    """
    report = DataReport(images=len(source))
    first_names: dict[str, str] = {}
    fields: dict[str, frozenset[str]] = {}  # with a label, by name of the image
    for number, image in enumerate(examine(source, workers=workers), start=1):
        if image.broken is not None:
            report.broken.append(image.broken)
        else:
            fields[image.name] = frozenset(image.labels)
            _record(report, image, first_names, size_px)
        if progress is not None:
            progress(TASK, number, len(source))
    report.unlabelled = {
        name: sorted(report.labels.keys() - labelled)
        for name, labelled in fields.items()
        if len(labelled) < len(report.labels)
    }
    report.labels = classes_of(report.labels)
    return report


def _record(
    report: DataReport, image: ExaminedImage, first_names: dict[str, str], size_px: int | None
) -> None:
    """Add one readable image to the report; `first_names` holds the first image by content."""
    report.sizes_px[image.width_px, image.height_px] += 1
    count_labels(report.labels, image.labels)
    if size_px is not None and image.short_px < size_px:
        report.too_small.append(f"{image.name}: {image.width_px}x{image.height_px} px")
    first = first_names.setdefault(image.content, image.name)
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
        if name != "caption" and len(names) <= MAX_CLASSES
    }
