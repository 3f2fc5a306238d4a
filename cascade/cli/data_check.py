"""`cascade data check`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli import data_options as options
from cascade.cli.verbosity import Verbosity, verbosity

if TYPE_CHECKING:
    from cascade.data.checking import DataReport
    from cascade.data.notes import SourceNotes
    from cascade.data.overlap import SharedImage

ADVICE = (
    "; make {low} black and {high} white with --range {low} {high}, or in a recipe with "
    "data.range=[{low},{high}]"
)


class TruncatedName(StrEnum):
    """What happens to JPEG files whose end is missing."""

    refuse = "refuse"
    keep = "keep"


class MissingName(StrEnum):
    """What happens to images of bands with missing values."""

    refuse = "refuse"
    mask = "mask"


Size = Annotated[
    int | None,
    typer.Option(
        "--size", min=1, help="Side in pixels; images with a shorter side below it are too small."
    ),
]
Missing = Annotated[
    MissingName | None,
    typer.Option(
        "--missing",
        help="With --bands: whether images with missing values are broken, or count as with "
        "data.missing=mask. With --size, images of which nothing is known at that size are broken "
        "even so. Default: refuse.",
    ),
]
Truncated = Annotated[
    TruncatedName,
    typer.Option("--truncated", help="Whether to keep JPEG files whose end is missing."),
]
MaxShift = Annotated[
    float | None,
    typer.Option(
        "--max-shift-px",
        min=0,
        help="With --pairs: largest shift between both images, in pixels of the smaller one. "
        "Default: 0.5.",
    ),
]
Validation = Annotated[
    str | None,
    typer.Option("--validation", help="A second set; list its images that are also in the first."),
]


def check(
    source: options.Source,
    size: Size = None,
    value_range: options.Range = None,
    truncated: Truncated = TruncatedName.refuse,
    bands: options.Bands = None,
    nodata: options.Nodata = None,
    axis: options.Axis = None,
    missing: Missing = None,
    pairs: options.Pairs = None,
    pair_bands: options.PairBands = None,
    max_shift_px: MaxShift = None,
    validation: Validation = None,
    workers: options.Workers = 0,
    name_pattern: options.NamePattern = None,
) -> None:
    """Read every image once; list broken, too small and duplicate ones, and summarise the rest.

    A warning appears if the images use only a small part of their range, as with 12-bit cameras.

    Labels that do not match the images, and files that are not images, are counted.
    With --validation, images of that set that have the same pixels as one of the first set, or
    nearly the same, are listed.
    The exit code is 1 if any image or shard is broken, labels do not match, or both sets share
    images.

    With --pairs, every image is compared with its input: sizes, and the shift between both, which
    is measured to a fraction of a pixel. Pairs beyond --max-shift-px are listed, with exit code 1.

    Examples:

    cascade data check photos --size 64 --validation more-photos

    cascade data check clean --pairs damaged
    """
    from cascade.cli.pairs import checked, input_bands, pairing
    from cascade.cli.progress import TaskProgress
    from cascade.data.checking import check_images
    from cascade.data.fitting import KnownCheck
    from cascade.data.notes import notes_for
    from cascade.data.overlap import shared_images
    from cascade.data.preparation import Decoding
    from cascade.data.sources import open_source
    from cascade.space import Space

    options.check_band_options(
        bands,
        {"--range": value_range},
        {"--nodata": nodata, "--axis": axis, "--missing": missing},
    )
    of_bands = None
    if bands is not None:
        kept = "refuse" if missing is None else missing.value
        of_bands = options.band_decoding(bands, nodata, axis, kept)
    known = None
    if size is not None and bands is not None and missing == "mask" and pairs is None:
        known = KnownCheck(Space(size_px=size, channels=bands))
    inputs = input_bands(pairs, pair_bands, of_bands)
    place = pairing(pairs, inputs)
    layout = None if of_bands is None else of_bands.layout
    opening = {"name_pattern": name_pattern, "layout": layout}
    reading = {"decoding": of_bands or Decoding(value_range, truncated.value), "workers": workers}
    damaged_shards: list[str] = []
    images = open_source(source, damaged_shards=damaged_shards, pairing=place, **opening)
    shared: list[SharedImage] = []
    with TaskProgress(with_ends=True) as progress:
        report = check_images(
            images,
            size_px=size,
            pairs=checked(pairs, inputs, max_shift_px, value_range, truncated.value),
            known=known,
            looks=validation is not None,
            all_pages=True,
            progress=progress.update,
            **reading,
        )
        if validation is not None:
            beside = place if pairs == "beside" else None
            others = check_images(
                open_source(validation, pairing=beside, **opening),
                looks=True,
                progress=lambda _, done, total: progress.update(
                    "reading --validation", done, total
                ),
                **reading,
            )
            shared = shared_images(others.looks, report.looks)
    notes = notes_for(images.notes, report.unlabelled).without(report.broken)
    _print(report, notes, damaged_shards, shared)
    both = any(each.is_same for each in shared)
    if both or report.broken or report.pairs.shifted or damaged_shards or notes.harmful:
        raise typer.Exit(1)


def _print(
    report: DataReport,
    notes: SourceNotes,
    damaged_shards: Sequence[str],
    shared: Sequence[SharedImage],
) -> None:
    """Print what is wrong with the images, what they hold, and which are in both sets."""
    from cascade.cli.progress import printable

    verbose = verbosity() == Verbosity.VERBOSE
    lines = [f"damaged shard: {shard}" for shard in damaged_shards]
    if verbosity() == Verbosity.QUIET:
        lines += [*map(str, notes.harmful), *report.broken_lines()]
    else:
        lines += notes.fault_lines(verbose=True)
        lines += notes.file_lines(verbose=verbose, hint=options.MORE)
        lines += report.lines(advice=ADVICE, verbose=verbose, hint=options.MORE)
    for each in shared:
        look = "has the same pixels as" if each.is_same else "looks nearly like"
        lines.append(f"in both sets: {each.name} {look} {each.other}")
    for line in lines:
        typer.echo(printable(line))
