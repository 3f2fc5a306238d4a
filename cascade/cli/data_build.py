"""`cascade data build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli import data_options as options
from cascade.cli.verbosity import Verbosity, note, verbosity

if TYPE_CHECKING:
    from cascade.data.notes import SourceNotes
    from cascade.data.splitting import Shares

NAMED_IMAGES = 3  # in a line that counts more


class ImageFormatName(StrEnum):
    """File formats of images in shards."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the shards.")]
Size = Annotated[
    int | None,
    typer.Option("--size", min=1, help="Shorter side in pixels; smaller images are left out."),
]
Square = Annotated[bool, typer.Option("--square", help="Crop the central square.")]
Format = Annotated[
    ImageFormatName | None,
    typer.Option("--format", help="Default: copy files; png if their pixels change."),
]
ShardSize = Annotated[int, typer.Option("--shard-mib", min=1, help="Size of a shard in MiB.")]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="TRAIN,VALIDATION[,TEST]",
        help="Shares of the splits, such as 0.8,0.1,0.1; default: all for training.",
    ),
]
SplitBy = Annotated[
    str | None,
    typer.Option("--split-by", help="Label field; images with the same label stay together."),
]
Seed = Annotated[int, typer.Option("--seed", help="Another seed gives another split.")]
MaxBrokenShare = Annotated[
    float,
    typer.Option(
        "--max-broken-share",
        min=0,
        max=1,
        help="Stop if more of the images are broken; three always may be, unless it is 0.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a build of other images or settings in OUT.")
]
Percentiles = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--percentiles",
        metavar="LOW HIGH",
        help="With --bands: measure the range of each band for the manifest.",
    ),
]


def build(
    source: options.Source,
    out: Out,
    size: Size = None,
    square: Square = False,
    image_format: Format = None,
    shard_mib: ShardSize = 256,
    split: Split = None,
    split_by: SplitBy = None,
    seed: Seed = 0,
    max_broken_share: MaxBrokenShare = 0.01,
    value_range: options.Range = None,
    bands: options.Bands = None,
    nodata: options.Nodata = None,
    axis: options.Axis = None,
    percentiles: Percentiles = None,
    pairs: options.Pairs = None,
    pair_bands: options.PairBands = None,
    overwrite: Overwrite = False,
    workers: options.Workers = 0,
    name_pattern: options.NamePattern = None,
) -> None:
    """Build webdataset shards: resized, without duplicates, split, with a manifest.

    The exit code is 1 if any image was broken or labels do not match the images; the shards hold
    the others.

    If OUT already holds a build of other images or settings, --overwrite is needed. A different
    number of images or different settings are refused at once; different images of the same
    number only after all of them have been read.

    With --bands, the shards hold lossless TIFF files, one for each image of a stack or volume.
    Missing values stay missing, and a warning counts the images that have any.

    The split of an image follows from its pixels, or from its label with --split-by, so images that
    are added later move none of the others.

    With --pairs, the shards hold NAME.high.* and NAME.low.*, both of their own size; train on them
    by data.pairs=beside.

    Example: cascade data build photos --out shards --size 256 --square --split 0.8,0.1,0.1
    """
    from cascade.cli.pairs import input_bands, pairing, written
    from cascade.cli.progress import TaskProgress
    from cascade.data.band_encoding import BandEncoding
    from cascade.data.building import build_shards
    from cascade.data.encoding import Encoding
    from cascade.data.sources import open_source

    shares = _shares(split, split_by, seed)
    options.check_band_options(
        bands,
        {"--range": value_range, "--format": image_format},
        {"--nodata": nodata, "--axis": axis, "--percentiles": percentiles},
    )
    file_format = None if image_format is None else image_format.value
    encoding = Encoding(size, square, file_format, value_range)
    decoding, layout = None, None
    if bands is not None:
        encoding = BandEncoding(size, square)
        decoding = options.band_decoding(bands, nodata, axis, "keep")
        layout = decoding.layout
    inputs = input_bands(pairs, pair_bands, decoding)
    images = open_source(
        source, name_pattern=name_pattern, layout=layout, pairing=pairing(pairs, inputs)
    )
    with TaskProgress(with_ends=True) as progress:
        manifest = build_shards(
            images,
            out,
            origin=source,
            encoding=encoding,
            decoding=decoding,
            percentiles=percentiles,
            shard_mib=shard_mib,
            shares=shares,
            split_by=split_by,
            seed=seed,
            max_broken_share=max_broken_share,
            inputs=written(pairs, inputs, file_format, value_range),
            overwrite=overwrite,
            workers=workers,
            progress=progress.update,
        )
    _report(manifest, images.notes, out)


def _report(manifest: Mapping[str, Any], every_note: SourceNotes, out: Path) -> None:
    """Print what was built and what was left out.

    Raises:
        Exit: with code 1, if an image was broken or labels are out of step.
    """
    from cascade.cli.progress import printable
    from cascade.reporting.words import counted

    skipped = [f"{image['name']}: {image['reason']}" for image in manifest["skipped"]]
    notes = every_note.without(skipped)
    lines = [f"left out: {image}" for image in skipped]
    if verbosity() == Verbosity.QUIET:
        lines += map(str, notes.harmful)
    else:
        lines += _remarks(manifest)
        lines += notes.lines(verbose=verbosity() == Verbosity.VERBOSE, hint=options.MORE)
    for line in lines:
        typer.echo(printable(line), err=True)
    counts = dict(manifest["counts"])
    duplicates = counted(counts.pop("duplicates"), "duplicate")
    texts = [f"{count:,} {name}".replace("_", " ") for name, count in counts.items()]
    shards = counted(len(manifest["shards"]), "shard")
    note(f"{out} holds {shards}: {', '.join([*texts, duplicates])}.")
    if "range" in manifest:
        pairs = ",".join(f"[{low:g},{high:g}]" for low, high in manifest["range"])
        note(f"range of the training images: data.range=[{pairs}]")
    if manifest["counts"]["broken"] or notes.harmful:
        raise typer.Exit(1)


def _remarks(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What the images in the shards lost, and which of them training refuses by default."""
    from cascade.data.notes import IMAGES
    from cascade.imaging.value_range import percentage

    for loss, count in manifest["losses"].items():
        yield f"{IMAGES.counted(count)}: {loss}"
    missing = manifest.get("missing", {})
    if not missing:
        return
    images = [f"{name} {percentage(share)}" for name, share in missing.items()]
    is_verbose = verbosity() == Verbosity.VERBOSE
    named = ", ".join(images if is_verbose else images[:NAMED_IMAGES])
    more = "" if is_verbose or len(images) <= NAMED_IMAGES else f", …{options.MORE}"
    yield (
        f"warning: {IMAGES.counted(len(missing))} with NaN or nodata, which the shards keep; "
        "training counts such images as broken unless data.missing=mask leaves these areas out of "
        f"the loss; or crop or fill them: {named}{more}"
    )


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
