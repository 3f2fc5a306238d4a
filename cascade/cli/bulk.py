"""What the verbs share that work through many pictures: options, signals, and the last words."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cascade.bulk.inputs import Found
    from cascade.bulk.work import Bulk, Moment

SIGTERM_CODE = 143


class FormatName(StrEnum):
    """What results are saved as."""

    png = "png"
    jpeg = "jpeg"
    webp = "webp"
    tiff = "tiff"


class SamplerName(StrEnum):
    """Samplers that work in tiles."""

    ddim = "ddim"
    ddpm = "ddpm"


Inputs = Annotated[
    list[str], typer.Argument(help="Pictures, folders, globs such as 'a/**/*.jpg', or *.tar.")
]
Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the results; for one picture, its name.")
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Lower is calmer, higher bolder. Default: the model's own."),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Default: the model's own.")]
Sampler = Annotated[SamplerName | None, typer.Option(help="Default: the model's own.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")]
Tile = Annotated[
    int | None, typer.Option(min=1, help="Side of a tile in pixels; default: by the memory.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, mps; default: the best that is there.")
]
Format = Annotated[
    FormatName | None,
    typer.Option("--format", help="Default: as the input; GIF and BMP become PNG."),
]
Compare = Annotated[
    bool, typer.Option("--compare", help="Also write before/after sheets into OUT/compare.")
]
NoMetadata = Annotated[
    bool, typer.Option("--no-metadata", help="Leave EXIF, resolution and settings out.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that were made with other settings.")
]


def work_through(prepare: Callable[[Callable[[Moment], None]], tuple[Bulk, Found]]) -> None:
    """Do the work, show how far it is, and say at the end what became of it.

    Of the processes that a launcher started together, the first speaks for all.

    Args:
        prepare: called with what is to be told every change.
    """
    from cascade.cli.progress import BulkProgress

    speaks = os.environ.get("RANK", "0") == "0"
    with BulkProgress(quiet=not speaks) as progress:
        bulk, found = prepare(progress.update)
        before = signal.signal(signal.SIGTERM, _end)
        try:
            bulk.run()
        finally:
            signal.signal(signal.SIGTERM, before)
            progress.stop()
            if speaks:
                _say(bulk, found)
    if speaks and (bulk.summary().failed or found.unreadable):
        raise typer.Exit(1)


def _end(number: int, frame: object) -> None:
    raise SystemExit(SIGTERM_CODE)


def _say(bulk: Bulk, found: Found) -> None:
    from cascade.cli.progress import printable

    summary = bulk.summary()
    failed = [*found.unreadable, *summary.failed]
    for name, reason in failed:
        typer.echo(printable(f"failed: {name}: {reason}"), err=True)
    parts = [f"{summary.made} {bulk.method.done}"]
    if summary.before:
        parts.append(f"{summary.before} were done before")
    if failed:
        parts.append(f"{len(failed)} failed")
    if found.passed_over:
        parts.append(f"{len(found.passed_over)} passed over (hidden or no pictures)")
    if summary.unfinished:
        parts.append(f"{summary.unfinished} left; the same command goes on from there")
    typer.echo(", ".join(parts))
