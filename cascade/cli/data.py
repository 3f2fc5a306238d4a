"""`cascade data build` and `cascade data check`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

data = typer.Typer(no_args_is_help=True, help="Make shards from images, and check images.")

Source = Annotated[str, typer.Argument(help="A folder, shards such as 'a-*.tar', or hf:NAME.")]
Size = Annotated[int | None, typer.Option("--size", min=1, help="Shorter side in pixels.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that read.")]
NamePattern = Annotated[
    str | None,
    typer.Option("--name-pattern", help="As data.name_pattern: labels from file names."),
]


class ImageFormatName(StrEnum):
    """What images are saved as."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


@data.command()
def build(
    source: Source,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the shards.")],
    size: Size = None,
    square: Annotated[bool, typer.Option("--square", help="Cut out the middle square.")] = False,
    image_format: Annotated[
        ImageFormatName | None,
        typer.Option("--format", help="Default: files as they are, or png if pixels change."),
    ] = None,
    shard_mib: Annotated[int, typer.Option("--shard-mib", min=1)] = 256,
    holdout: Annotated[
        float, typer.Option("--holdout", min=0, max=0.99, help="Share that is kept apart.")
    ] = 0.0,
    split_by: Annotated[
        str | None,
        typer.Option("--split-by", help="Label whose images are all kept on one side."),
    ] = None,
    max_broken_share: Annotated[
        float, typer.Option("--max-broken-share", min=0, max=1, help="More of them is an error.")
    ] = 0.01,
    workers: Workers = 0,
    name_pattern: NamePattern = None,
) -> None:
    """Make webdataset shards: resized, without duplicates, split, with a manifest.

    Ends with 1 if any image was broken; the shards hold the others.

    Example: cascade data build photos --out shards --size 256 --square --holdout 0.05
    """
    from cascade.cli.progress import ReadingProgress
    from cascade.data.building import Encoding, build_shards
    from cascade.data.sources import open_source

    images = open_source(source, name_pattern=name_pattern)
    encoding = Encoding(size, square, None if image_format is None else image_format.value)
    with ReadingProgress(source) as progress:
        manifest = build_shards(
            images,
            out,
            origin=source,
            encoding=encoding,
            shard_mib=shard_mib,
            holdout=holdout,
            split_by=split_by,
            max_broken_share=max_broken_share,
            workers=workers,
            report=progress.update,
        )
    for skipped in manifest["skipped"]:
        typer.echo(f"left out: {skipped['name']}: {skipped['reason']}", err=True)
    counts = ", ".join(f"{count} {name}" for name, count in manifest["counts"].items())
    typer.echo(f"{out} holds {len(manifest['shards'])} shards: {counts}.".replace("_", " "))
    if manifest["counts"]["broken"]:
        raise typer.Exit(1)


@data.command()
def check(
    source: Source, size: Size = None, workers: Workers = 0, name_pattern: NamePattern = None
) -> None:
    """Read every image once: what is broken, too small or there twice; classes and sizes.

    Ends with 1 if any image or shard is broken.

    Example: cascade data check photos --size 64
    """
    from cascade.cli.progress import ReadingProgress
    from cascade.data.checking import check_images
    from cascade.data.sources import open_source

    damaged: list[str] = []
    images = open_source(source, name_pattern=name_pattern, damaged=damaged)
    with ReadingProgress(source) as progress:
        found = check_images(images, size_px=size, workers=workers, report=progress.update)
    for line in [*(f"damaged shard: {each}" for each in damaged), *found.lines()]:
        typer.echo(line)
    if found.broken or damaged:
        raise typer.Exit(1)
