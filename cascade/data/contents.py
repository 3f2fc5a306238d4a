"""Counts what the image files of a data set hold: formats, modes, pages, and numbers in use."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cascade.data.preparation import ValueRange
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import FileFacts
from cascade.imaging.rasters.raster import Raster, outside_shares
from cascade.imaging.value_range import (
    common_range,
    is_narrow,
    outside_share,
    percentage,
    used_range,
)
from cascade.space import Range, Space

TITLES = {"WEBP": "WebP", "HEIF": "HEIC", "JXL": "JPEG XL"}  # of formats; others are Pillow's names
KIND_NAMES = {"grey": "greyscale"}  # in reports
CHANNELS_OF_KIND = {"grey": 1, "palette": 1, "CMYK": 4}  # others have 3


@dataclass(frozen=True, kw_only=True)
class ImageValues:
    """Which numbers the pixels of one image use, before its range is applied.

    Attributes:
        bits: 8 or 16.
        used: the smallest and the largest.
        common: those between which nearly all lie; see `common_range`.
        outside: share of the numbers outside the data set's range, in [0, 1].
        alpha: whether the image has transparency.
        truncated: whether its end is missing.
        damaged_page: what is wrong with a page or frame behind the first; empty for nothing.
    """

    bits: int
    used: ValueRange
    common: ValueRange
    outside: float = 0.0
    alpha: bool = False
    truncated: bool = False
    damaged_page: str = ""

    @classmethod
    def of(
        cls, picture: Picture, limits: ValueRange | None, *, damaged_page: str = ""
    ) -> ImageValues:
        """Look at the pixels of a picture; `limits` is the data set's range of numbers."""
        return cls(
            bits=picture.bits,
            used=used_range(picture),
            common=common_range(picture),
            outside=0.0 if limits is None else outside_share(picture, *limits),
            alpha=picture.alpha is not None,
            truncated=picture.is_truncated,
            damaged_page=damaged_page,
        )


@dataclass(frozen=True, kw_only=True)
class BandValues:
    """Which numbers the bands of one image use.

    Attributes:
        used: the smallest and the largest number of each band; a band without any has none.
        outside: the largest share of a band's numbers outside of its range, in [0, 1].
        missing: share of the numbers that are NaN or nodata, in [0, 1].
    """

    used: tuple[Range | None, ...]
    outside: float = 0.0
    missing: float = 0.0

    @classmethod
    def of(cls, raster: Raster, space: Space | None) -> BandValues:
        """Look at the numbers of an image; `space` has the ranges, if there are any."""
        missing = raster.missing
        used: list[Range | None] = []
        for band, values in enumerate(raster.values):
            numbers = values if missing is None else values[~missing[band]]
            used.append((float(numbers.min()), float(numbers.max())) if numbers.size else None)
        return cls(
            used=tuple(used),
            outside=0.0 if space is None else max(outside_shares(raster, space)),
            missing=0.0 if missing is None else float(missing.mean()),
        )


@dataclass(frozen=True)
class NarrowRange:
    """A data set uses little of its numbers.

    Attributes:
        bits: 8 or 16.
        images: number of images with so many bits.
        low: the smallest number in use, a few pixels aside.
        high: the largest one, likewise.
        used: the smallest and the largest number of all pixels.
    """

    bits: int
    images: int
    low: int
    high: int
    used: ValueRange

    def __str__(self) -> str:
        text = f"values {self.low} to {self.high} of {2**self.bits - 1:,} in {_images(self.images)}"
        if self.used == (self.low, self.high):
            return text
        return f"{text}, apart from a few pixels ({self.used[0]} to {self.used[1]})"


@dataclass
class NumbersInUse:
    """Which numbers the images of one bit depth use.

    Attributes:
        bits: 8 or 16.
        images: number of images.
        used: the smallest and the largest number in any of them.
        common: those between which nearly all lie in every image.
    """

    bits: int
    images: int = 0
    used: ValueRange | None = None
    common: ValueRange | None = None

    def add(self, values: ImageValues) -> None:
        """Take in one image."""
        self.images += 1
        self.used = _joined(self.used, values.used)
        self.common = _joined(self.common, values.common)

    def narrow(self) -> NarrowRange | None:
        """The range that should be stated; None if most of the numbers are in use."""
        assert self.used is not None
        assert self.common is not None
        low, high = self.common
        all_narrow = is_narrow(*self.used, self.bits)
        has_outliers = 0 < high - low < (self.used[1] - self.used[0]) / 2  # dead or hot pixels
        if all_narrow and not has_outliers:
            low, high = self.used
        is_white_page = not (all_narrow or is_narrow(0, high, self.bits))
        if is_white_page or not is_narrow(low, high, self.bits):
            return None
        return NarrowRange(self.bits, self.images, low, high, self.used)


@dataclass
class Contents:
    """What the image files of a data set hold.

    Attributes:
        limits: the range of numbers that the data set states; None for none.
        formats: number of images by file format, as people call it.
        modes: number of images by mode, bits and channels, as text.
        pages: number of images by number of pages or frames.
        numbers: numbers in use, by bits.
        clipped: images with numbers outside the data set's range, and the share of these in [0, 1].
        truncated: names of the images that were used though their end is missing.
        damaged_pages: one `name: page: reason` per image with a damaged page that is not used.
        bands: the smallest and the largest number of each band in any image.
        missing: share of the numbers that are NaN or nodata in [0, 1], by image.
        wide: number of channels of the images of which a picture shows only some.
    """

    limits: ValueRange | None = None
    formats: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    pages: Counter[int] = field(default_factory=Counter)
    numbers: dict[int, NumbersInUse] = field(default_factory=dict)
    clipped: dict[str, float] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    damaged_pages: list[str] = field(default_factory=list)
    bands: dict[int, Range] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)
    wide: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, facts: FileFacts, values: ImageValues | BandValues) -> None:
        """Count one image."""
        self.formats[TITLES.get(facts.format, facts.format)] += 1
        if isinstance(values, BandValues):
            self._add_bands(name, facts, values)
            return
        self.modes[mode_of(facts, alpha=values.alpha)] += 1
        self.pages[facts.pages] += 1
        self.numbers.setdefault(values.bits, NumbersInUse(values.bits)).add(values)
        self.clipped.update({name: values.outside} if values.outside > 0 else {})
        self.truncated += [name] if values.truncated else []
        self.damaged_pages += [values.damaged_page] if values.damaged_page else []
        if left_out(facts, alpha=values.alpha):
            self.wide[name] = facts.channels

    def _add_bands(self, name: str, facts: FileFacts, values: BandValues) -> None:
        bands = "1 band" if facts.channels == 1 else f"{facts.channels} bands"
        self.modes[f"{bands} of {facts.kind}"] += 1
        self.clipped.update({name: values.outside} if values.outside > 0 else {})
        self.missing.update({name: values.missing} if values.missing > 0 else {})
        for band, used in enumerate(values.used, start=1):
            if used is not None:
                low, high = self.bands.get(band, used)
                self.bands[band] = min(low, used[0]), max(high, used[1])

    def facts(self) -> dict[str, str]:
        """Formats, modes, pages and numbers in use as text, by name."""
        if not self.formats:
            return {}
        if self.bands:
            bands = [f"band {n} {low:g} to {high:g}" for n, (low, high) in self.bands.items()]
            facts = {"formats": counted(self.formats), "modes": counted(self.modes)}
            return {**facts, "values": "; ".join(bands)}
        several = sum(self.pages.values()) - self.pages[1]
        pages = "1 in each file"
        if several:
            pages = f"up to {max(self.pages)}, several in {several} (the first one is used)"
        return {
            "formats": counted(self.formats),
            "modes": counted(self.modes),
            "pages": pages,
            "values": "; ".join(self._use_of(self.numbers[bits]) for bits in sorted(self.numbers)),
        }

    def _use_of(self, numbers: NumbersInUse) -> str:
        low, high = numbers.used or (0, 0)
        count = f" ({numbers.images})" if len(self.numbers) > 1 else ""
        return f"{low} to {high} of {2**numbers.bits - 1:,}{count}"

    def remarks(self, hint: str = "") -> list[str]:
        """What was done to images to use them, one line per kind.

        Args:
            hint: added to each line, such as `; --verbose lists them`.
        """
        lines = []
        if self.truncated:
            lines.append(f"{_images(len(self.truncated))} truncated, kept without the end{hint}")
        if self.damaged_pages:
            first, others = self.damaged_pages[0].rstrip("."), len(self.damaged_pages) - 1
            more = f", and {_images(others)} more{hint}" if others else ""
            lines.append(f"a later page is damaged (the first one is used): {first}{more}")
        if self.clipped:
            lines.append(
                f"{_images(len(self.clipped))} with values outside the range, which are clipped: "
                f"up to {percentage(max(self.clipped.values()))} of an image{hint}"
            )
        if self.missing:
            lines.append(
                f"{_images(len(self.missing))} with NaN or nodata: up to "
                f"{percentage(max(self.missing.values()))} of an image{hint}"
            )
        return [*lines, *self.left_out_remarks(hint)]

    def left_out_remarks(self, hint: str = "") -> list[str]:
        """A line if images have channels that are not read; see `remarks`."""
        if not self.wide:
            return []
        most = max(self.wide.values())
        return [
            f"{_images(len(self.wide))} of up to {most} channels, of which only the colour "
            f"channels are read; to read all as measured values, pass --bands {most}, and in "
            f"a recipe set space.channels={most}{hint}"
        ]

    def remarks_by_image(self) -> list[str]:
        """What `remarks` counts, one line per image."""
        truncated = [f"truncated, kept: {name}" for name in self.truncated]
        clipped = [f"clipped: {name}: {percentage(s)}" for name, s in self.clipped.items()]
        missing = [f"NaN or nodata: {name}: {percentage(s)}" for name, s in self.missing.items()]
        wide = [f"channels left out: {name}: {count} in all" for name, count in self.wide.items()]
        pages = [f"damaged page: {line}" for line in self.damaged_pages]
        return [*truncated, *pages, *clipped, *missing, *wide]

    def narrow_ranges(self) -> list[NarrowRange]:
        """The bit depths whose images use so few numbers that a range should be stated.

        There are none if the data set states one.
        """
        if self.limits is not None:
            return []
        ranges = [self.numbers[bits].narrow() for bits in sorted(self.numbers)]
        return [each for each in ranges if each is not None]


def mode_of(facts: FileFacts, *, alpha: bool) -> str:
    """Describe how a file stores its pixels, such as `RGB with alpha, 8 bits, 4 channels`."""
    with_alpha = " with alpha" if alpha else ""
    if count := left_out(facts, alpha=alpha):
        with_alpha = f" with {count} more"
    bits = "1 bit" if facts.bits == 1 else f"{facts.bits} bits"
    channels = "1 channel" if facts.channels == 1 else f"{facts.channels} channels"
    return f"{KIND_NAMES.get(facts.kind, facts.kind)}{with_alpha}, {bits}, {channels}"


def left_out(facts: FileFacts, *, alpha: bool) -> int:
    """Number of the channels of a file that a picture has no place for."""
    if alpha:
        return 0
    return max(0, facts.channels - CHANNELS_OF_KIND.get(facts.kind, 3))


def counted(counts: Counter[str]) -> str:
    """Counts as text, the largest first: `JPEG (900), PNG (3)`; for one alone its name."""
    if len(counts) == 1:
        return next(iter(counts))
    mark = "; " if any("," in name for name in counts) else ", "
    return mark.join(f"{name} ({count})" for name, count in counts.most_common())


def _joined(first: ValueRange | None, second: ValueRange) -> ValueRange:
    return second if first is None else (min(first[0], second[0]), max(first[1], second[1]))


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
