"""`cascade data build` and `cascade data check`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cascade.cli.verb import add_verb
from cascade.cli.verbosity import Verbosity, note, verbosity

MORE = "; --verbose lists them"
ADVICE = (
    ", so they are nearly without contrast; make {low} black and {high} white by --range {low} "
    "{high}, and in a recipe by data.range=[{low},{high}]"
)


class TruncatedName(StrEnum):
    """What happens to JPEG files whose end is missing."""

    refuse = "refuse"
    keep = "keep"


data = typer.Typer(no_args_is_help=True, help="Build shards from images, and check images.")

Source = Annotated[
    str, typer.Argument(help="Images: a folder, shards such as 'a-*.tar', or hf:NAME.")
]
Size = Annotated[int | None, typer.Option("--size", min=1, help="Shorter side in pixels.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, help="Number of processes that read images.")
]
NamePattern = Annotated[
    str | None,
    typer.Option(
        "--name-pattern", help="Regular expression on file names; its named groups are labels."
    ),
]
Range = Annotated[
    tuple[int, int] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Numbers in the files that become black and white; others are clipped.",
    ),
]
Truncated = Annotated[
    TruncatedName,
    typer.Option("--truncated", help="Whether to keep JPEG files whose end is missing."),
]


class ImageFormatName(StrEnum):
    """File formats of images in shards."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


def build(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the shards.")],
    size: Size = None,
    square: Annotated[bool, typer.Option("--square", help="Crop the central square.")] = False,
    image_format: Annotated[
        ImageFormatName | None,
        typer.Option("--format", help="Default: copy files; png if their pixels change."),
    ] = None,
    shard_mib: Annotated[
        int, typer.Option("--shard-mib", min=1, help="Size of a shard in MiB.")
    ] = 256,
    holdout: Annotated[
        float, typer.Option("--holdout", min=0, max=0.99, help="Share of the held-out split.")
    ] = 0.0,
    split_by: Annotated[
        str | None,
        typer.Option("--split-by", help="Label field; images that share a name are not split up."),
    ] = None,
    max_broken_share: Annotated[
        float,
        typer.Option(
            "--max-broken-share", min=0, max=1, help="Stop if more of the images are broken."
        ),
    ] = 0.01,
    value_range: Range = None,
    workers: Workers = 0,
    name_pattern: NamePattern = None,
) -> None:
    """Build webdataset shards: resized, without duplicates, split, with a manifest.

    The exit code is 1 if any image was broken or labels are out of step with the images; the shards
    hold the others.

    Example: cascade data build photos --out shards --size 256 --square --holdout 0.05
    """
    from cascade.cli.progress import TaskProgress, printable
    from cascade.data.building import build_shards
    from cascade.data.encoding import Encoding
    from cascade.data.notes import IMAGES
    from cascade.data.sources import open_source

    images = open_source(source, name_pattern=name_pattern)
    with TaskProgress(in_pipes=True) as progress:
        manifest = build_shards(
            images,
            out,
            origin=source,
            encoding=Encoding(
                size, square, None if image_format is None else image_format.value, value_range
            ),
            shard_mib=shard_mib,
            holdout=holdout,
            split_by=split_by,
            max_broken_share=max_broken_share,
            workers=workers,
            progress=progress.update,
        )
    skipped = [f"{image['name']}: {image['reason']}" for image in manifest["skipped"]]
    notes = images.notes.without(skipped)
    lines = [f"left out: {image}" for image in skipped]
    if verbosity() == Verbosity.QUIET:
        lines += map(str, notes.harmful)
    else:
        lines += (f"{IMAGES.counted(count)}: {loss}" for loss, count in manifest["losses"].items())
        lines += notes.lines(verbose=verbosity() == Verbosity.VERBOSE, hint=MORE)
    for line in lines:
        typer.echo(printable(line), err=True)
    counts = ", ".join(f"{count} {name}" for name, count in manifest["counts"].items())
    note(f"{out} holds {len(manifest['shards'])} shards: {counts}.".replace("_", " "))
    if manifest["counts"]["broken"] or notes.harmful:
        raise typer.Exit(1)


def check(
    source: Source,
    size: Size = None,
    value_range: Range = None,
    truncated: Truncated = TruncatedName.refuse,
    workers: Workers = 0,
    name_pattern: NamePattern = None,
) -> None:
    """Read every image once; list broken, too small and duplicated ones, and what files hold.

    A warning says so if the images use little of their numbers, as those of 12-bit cameras do.

    Labels that are out of step with the images, and files that are not images, are counted.
    The exit code is 1 if any image or shard is broken or labels are out of step.

    Example: cascade data check photos --size 64
    """
    from cascade.cli.progress import TaskProgress, printable
    from cascade.data.checking import check_images
    from cascade.data.notes import notes_for
    from cascade.data.preparation import Decoding
    from cascade.data.sources import open_source

    damaged_shards: list[str] = []
    images = open_source(source, name_pattern=name_pattern, damaged_shards=damaged_shards)
    with TaskProgress(in_pipes=True) as progress:
        report = check_images(
            images,
            size_px=size,
            decoding=Decoding(value_range, truncated.value),
            workers=workers,
            progress=progress.update,
        )
    notes = notes_for(images.notes, report.unlabelled).without(report.broken)
    verbose = verbosity() == Verbosity.VERBOSE
    lines = [f"damaged shard: {shard}" for shard in damaged_shards]
    if verbosity() == Verbosity.QUIET:
        lines += [*map(str, notes.harmful), *report.broken_lines()]
    else:
        lines += notes.fault_lines(verbose=True)
        lines += notes.file_lines(verbose=verbose, hint=MORE)
        lines += report.lines(advice=ADVICE, verbose=verbose, hint=MORE)
    for line in lines:
        typer.echo(printable(line))
    if report.broken or damaged_shards or notes.harmful:
        raise typer.Exit(1)


for verb in (build, check):
    add_verb(data, verb)
