"""Shared by the bulk commands: options, progress, SIGTERM, the last line and the exit code."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cascade.cli import completing

if TYPE_CHECKING:
    from cascade.bulk.progress import ProgressUpdate
    from cascade.bulk.work import Bulk

InputNames = Annotated[
    list[str], typer.Argument(help="Pictures, folders, globs such as 'a/**/*.jpg', or *.tar.")
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder of the results, or the file of a single result."),
]
Model = Annotated[
    str,
    typer.Option(
        help="A bundled pipeline, a Hub id, or the folder of a pipeline, a stage or a run.",
        autocompletion=completing.pipelines,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")]
Variants = Annotated[
    int,
    typer.Option("--variants", "-n", min=1, help="Number of seeds, shown together on a sheet."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Largest tile: as many pixels as a square of this side. Default: what memory allows.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or mps. Default: the best one available.")
]
Format = Annotated[
    Literal["png", "jpeg", "webp", "tiff"] | None,
    typer.Option("--format", help="Default: the format of the input, or PNG if it is not written."),
]
Pages = Annotated[
    Literal["all", "first"],
    typer.Option(help="Of a TIFF with several pages, or an animation: all, or the first alone."),
]
Truncated = Annotated[
    Literal["refuse", "keep"],
    typer.Option(help="A JPEG whose end is missing: refuse it, or keep what is there of it."),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Also write before/after sheets into OUT/compare, and index.html with sliders.",
    ),
]
NoMetadata = Annotated[
    bool, typer.Option("--no-metadata", help="Leave EXIF, XMP, IPTC and settings out of results.")
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace files that differ from what this command makes."),
]

Workers = Annotated[
    int,
    typer.Option(
        min=1, help="Number of processes that share the pictures; each takes its part of the cores."
    ),
]


def work_through(prepare: Callable[[Callable[[ProgressUpdate], None]], Bulk], workers: int) -> None:
    """Do all jobs, show the progress, print the counts and exit with the outcome's code.

    Of several processes that a launcher started together, only the first prints and reports
    failures in its exit code, because the launcher stops the others when one of them fails.

    Args:
        prepare: called once, with the callback for progress; returns the work.
        workers: number of processes that share the work.
    """
    from cascade.cli.bulk_progress import BulkProgress
    from cascade.cli.progress import printable
    from cascade.cli.verbosity import Verbosity, verbosity
    from cascade.cli.workers import check_workers, further_workers

    check_workers(workers)
    is_first = os.environ.get("RANK", "0") == "0"
    with BulkProgress(verbosity() if is_first else None) as progress:
        work = prepare(progress.update)
        previous = signal.signal(signal.SIGTERM, _terminate)
        try:
            with further_workers(min(workers, len(work.jobs))):
                work.run()
        finally:
            signal.signal(signal.SIGTERM, previous)
            progress.stop()
            if is_first and verbosity() > Verbosity.QUIET:
                for line in work.outcome().loss_lines():
                    typer.echo(printable(line), err=True)
                typer.echo(work.outcome().last_line(work.method.description))
    if is_first and work.outcome().exit_code:
        raise typer.Exit(work.outcome().exit_code)


def _terminate(number: int, frame: object) -> None:
    from cascade.bulk.outcome import TERMINATED

    raise SystemExit(TERMINATED)
