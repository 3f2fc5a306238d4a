"""`cascade data build` and `cascade data check`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.verb import add_verb
from cascade.cli.verbosity import Verbosity, note, verbosity

if TYPE_CHECKING:
    from cascade.data.band_decoding import BandDecoding
    from cascade.data.overlap import SharedImage
    from cascade.data.splitting import Shares

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


Bands = Annotated[
    int | None,
    typer.Option("--bands", min=1, max=64, help="Read this many bands of numbers as they are."),
]
Nodata = Annotated[
    float | None, typer.Option("--nodata", help="With --bands: a number of missing ones.")
]
Axis = Annotated[
    int | None,
    typer.Option("--axis", min=0, max=2, help="With --bands: axis along which volumes are cut."),
]


Pairs = Annotated[
    str | None,
    typer.Option(
        help="Inputs of pairs: a folder or shards with the same names, or beside for NAME.low.* "
        "beside NAME.high.*."
    ),
]
PairBands = Annotated[
    int | None,
    typer.Option(
        "--pair-bands", min=1, max=64, help="With --pairs: bands of the inputs. Default: --bands."
    ),
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
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="TRAIN,VALIDATION[,TEST]",
            help="Shares of the splits, such as 0.8,0.1,0.1; default: all for training.",
        ),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option("--split-by", help="Label field; images that share a name are not split up."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another number gives another split.")] = 0,
    max_broken_share: Annotated[
        float,
        typer.Option(
            "--max-broken-share", min=0, max=1, help="Stop if more of the images are broken."
        ),
    ] = 0.01,
    value_range: Range = None,
    bands: Bands = None,
    nodata: Nodata = None,
    axis: Axis = None,
    percentiles: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--percentiles",
            metavar="LOW HIGH",
            help="With --bands: measure the range of each band for the manifest.",
        ),
    ] = None,
    pairs: Pairs = None,
    pair_bands: PairBands = None,
    workers: Workers = 0,
    name_pattern: NamePattern = None,
) -> None:
    """Build webdataset shards: resized, without duplicates, split, with a manifest.

    The exit code is 1 if any image was broken or labels are out of step with the images; the shards
    hold the others.

    With --bands, the shards hold TIFF files without loss, one for each image of a stack or volume.

    The split of an image follows from its pixels, or from its label with --split-by, so images that
    are added later move none of the others.

    With --pairs, the shards hold NAME.high.* and NAME.low.*, both of their own size; train on them
    by data.pairs=beside.

    Example: cascade data build photos --out shards --size 256 --square --split 0.8,0.1,0.1
    """
    from cascade.cli.pairs import input_bands, pairing, written
    from cascade.cli.progress import TaskProgress, printable
    from cascade.data.band_encoding import BandEncoding
    from cascade.data.building import build_shards
    from cascade.data.encoding import Encoding
    from cascade.data.notes import IMAGES
    from cascade.data.sources import open_source

    shares = _shares(split, split_by, seed)
    _check_band_options(
        bands,
        {"--range": value_range, "--format": image_format},
        {"--nodata": nodata, "--axis": axis, "--percentiles": percentiles},
    )
    decoding = None if bands is None else _band_decoding(bands, nodata, axis)
    layout = None if decoding is None else decoding.layout
    inputs = input_bands(pairs, pair_bands, decoding)
    images = open_source(
        source, name_pattern=name_pattern, layout=layout, pairing=pairing(pairs, inputs)
    )
    file_format = None if image_format is None else image_format.value
    with TaskProgress(in_pipes=True) as progress:
        manifest = build_shards(
            images,
            out,
            origin=source,
            encoding=Encoding(size, square, file_format, value_range)
            if decoding is None
            else BandEncoding(size, square),
            decoding=decoding and decoding._replace(missing="keep"),
            percentiles=percentiles,
            shard_mib=shard_mib,
            shares=shares,
            split_by=split_by,
            seed=seed,
            max_broken_share=max_broken_share,
            inputs=written(pairs, inputs, file_format, value_range),
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
    if "range" in manifest:
        pairs = ",".join(f"[{low:g},{high:g}]" for low, high in manifest["range"])
        note(f"range of the training images: data.range=[{pairs}]")
    if manifest["counts"]["broken"] or notes.harmful:
        raise typer.Exit(1)


def check(
    source: Source,
    size: Size = None,
    value_range: Range = None,
    truncated: Truncated = TruncatedName.refuse,
    bands: Bands = None,
    nodata: Nodata = None,
    axis: Axis = None,
    pairs: Pairs = None,
    pair_bands: PairBands = None,
    max_shift_px: Annotated[
        float | None,
        typer.Option(
            "--max-shift-px",
            min=0,
            help="With --pairs: largest shift between both images, in pixels of the smaller one. "
            "Default: 0.5.",
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option("--validation", help="Also list the images that are in this set too."),
    ] = None,
    workers: Workers = 0,
    name_pattern: NamePattern = None,
) -> None:
    """Read every image once; list broken, too small and duplicated ones, and what files hold.

    A warning says so if the images use little of their numbers, as those of 12-bit cameras do.

    Labels that are out of step with the images, and files that are not images, are counted.
    With --validation, images of that set that have the same pixels as one of the first set, or
    nearly the same, are listed.
    The exit code is 1 if any image or shard is broken, labels are out of step, or both sets share
    pixels.

    With --pairs, every image is compared with its input: sizes, and the shift between both, which
    is measured to a fraction of a pixel. Pairs beyond --max-shift-px are listed, with exit code 1.

    Examples:

    cascade data check photos --size 64 --validation more-photos

    cascade data check clean --pairs damaged
    """
    from cascade.cli.pairs import checked, input_bands, pairing
    from cascade.cli.progress import TaskProgress, printable
    from cascade.data.checking import check_images
    from cascade.data.notes import notes_for
    from cascade.data.overlap import shared_images
    from cascade.data.preparation import Decoding
    from cascade.data.sources import open_source

    _check_band_options(bands, {"--range": value_range}, {"--nodata": nodata, "--axis": axis})
    decoding = None if bands is None else _band_decoding(bands, nodata, axis)
    layout = None if decoding is None else decoding.layout
    damaged_shards: list[str] = []
    inputs = input_bands(pairs, pair_bands, decoding)
    expected = checked(pairs, inputs, max_shift_px, value_range, truncated.value)
    images = open_source(
        source,
        name_pattern=name_pattern,
        damaged_shards=damaged_shards,
        layout=layout,
        pairing=pairing(pairs, inputs),
    )
    with TaskProgress(in_pipes=True) as progress:
        report = check_images(
            images,
            size_px=size,
            decoding=decoding or Decoding(value_range, truncated.value),
            pairs=expected,
            looks=validation is not None,
            workers=workers,
            progress=progress.update,
        )
        shared: list[SharedImage] = []
        if validation is not None:
            others = check_images(
                open_source(validation, name_pattern=name_pattern, layout=layout),
                decoding=decoding or Decoding(value_range, truncated.value),
                looks=True,
                workers=workers,
                progress=lambda _, done, total: progress.update(
                    "reading --validation", done, total
                ),
            )
            shared = shared_images(others.looks, report.looks)
    notes = notes_for(images.notes, report.unlabelled).without(report.broken)
    verbose = verbosity() == Verbosity.VERBOSE
    lines = [f"damaged shard: {shard}" for shard in damaged_shards]
    if verbosity() == Verbosity.QUIET:
        lines += [*map(str, notes.harmful), *report.broken_lines()]
    else:
        lines += notes.fault_lines(verbose=True)
        lines += notes.file_lines(verbose=verbose, hint=MORE)
        lines += report.lines(advice=ADVICE, verbose=verbose, hint=MORE)
    for each in shared:
        look = "has the same pixels as" if each.is_same else "looks nearly like"
        lines.append(f"in both sets: {each.name} {look} {each.other}")
    for line in lines:
        typer.echo(printable(line))
    both = any(each.is_same for each in shared)
    if both or report.broken or report.pairs.shifted or damaged_shards or notes.harmful:
        raise typer.Exit(1)


def _band_decoding(bands: int, nodata: float | None, axis: int | None) -> BandDecoding:
    from cascade.data.band_decoding import BandDecoding

    return BandDecoding(bands, nodata=nodata, axis=2 if axis is None else axis)


def _shares(split: str | None, split_by: str | None, seed: int) -> Shares:
    """Read the shares of the splits, and refuse options without effect."""
    from cascade.data.splitting import Shares

    if split is None:
        for name, value in (("--split-by", split_by), ("--seed", seed)):
            if value:
                raise typer.BadParameter(f"{name} needs --split.")
        return Shares()
    try:
        numbers = [float(each) for each in split.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--split must be shares such as 0.8,0.1,0.1, got {split!r}."
        ) from None
    return Shares.of(numbers)


def _check_band_options(
    bands: int | None, colours: dict[str, Any], numbers: dict[str, Any]
) -> None:
    """Refuse options without effect.

    Args:
        bands: the number of bands; None for colours.
        colours: options for colours alone, by name.
        numbers: options for bands alone, by name.
    """
    unused, other = (numbers, "needs") if bands is None else (colours, "cannot be used with")
    for name, value in unused.items():
        if value is not None:
            raise typer.BadParameter(f"{name} {other} --bands.")


for verb in (build, check):
    add_verb(data, verb)
