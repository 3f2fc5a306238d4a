"""What is wrong with a set of images, and what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cascade.data.examination import examine
from cascade.data.source import ImageSource

MAX_CLASSES = 1000  # a field with more names is text, such as a caption


@dataclass(kw_only=True)
class DataReport:
    """What reading every image once found.

    Attributes:
        images: how many there are.
        broken: those that cannot be read, as `name: reason`.
        too_small: those with a side below the wanted size, as `name: WxH px`.
        duplicates: pairs of names: an image, and an earlier one with the same pixels.
        labels: how many images have each name, by field; fields of free text are left out.
        sizes_px: how many images have each (width, height).
    """

    images: int
    broken: list[str] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    sizes_px: Counter[tuple[int, int]] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The report as text: first what is wrong, one line for each image."""
        wrong = [f"broken: {line}" for line in self.broken]
        wrong += [f"too small: {line}" for line in self.too_small]
        wrong += [f"twice: {name} has the pixels of {other}" for name, other in self.duplicates]
        counts = [
            f"{name}: " + ", ".join(f"{text} {count}" for text, count in names.most_common())
            for name, names in self.labels.items()
        ]
        return [
            *wrong,
            *counts,
            *self._sizes(),
            f"{self.images} images, {len(self.broken)} broken, {len(self.too_small)} too small, "
            f"{len(self.duplicates)} twice",
        ]

    def _sizes(self) -> list[str]:
        if not self.sizes_px:
            return []
        short = sorted(min(size) for size in self.sizes_px.elements())
        (width, height), count = self.sizes_px.most_common(1)[0]
        return [
            f"sizes: shorter side {short[0]} to {short[-1]} px, median {short[len(short) // 2]}; "
            f"most often {width}x{height} ({count})"
        ]


def check_images(
    source: ImageSource,
    *,
    size_px: int | None = None,
    workers: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> DataReport:
    """Read every image once.

    Args:
        source: of the images.
        size_px: of the stage that they are for.
        workers: processes that read.
        report: called with how many images were read, of how many.
    """
    found = DataReport(images=len(source))
    first: dict[str, str] = {}
    for number, image in enumerate(examine(source, workers=workers), start=1):
        if image.broken is not None:
            found.broken.append(image.broken)
        else:
            found.sizes_px[image.width_px, image.height_px] += 1
            count_labels(found.labels, image.labels)
            if size_px is not None and image.short_px < size_px:
                found.too_small.append(f"{image.name}: {image.width_px}x{image.height_px} px")
            if first.setdefault(image.content, image.name) != image.name:
                found.duplicates.append((image.name, first[image.content]))
        if report is not None:
            report(number, len(source))
    found.labels = classes_of(found.labels)
    return found


def count_labels(counts: dict[str, Counter[str]], labels: dict[str, str]) -> None:
    """Add one image's labels to the counts by field."""
    for name, text in labels.items():
        counts.setdefault(name, Counter())[text] += 1


def classes_of(counts: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """The fields that are classes: not captions, and not more than `MAX_CLASSES` names."""
    return {
        name: names
        for name, names in sorted(counts.items())
        if name != "caption" and len(names) <= MAX_CLASSES
    }
