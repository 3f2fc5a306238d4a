"""Shared by the bulk commands: progress, SIGTERM, the last line and the exit code."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from cascade.bulk.progress import ProgressUpdate
    from cascade.bulk.work import Bulk
    from cascade.cli.verbosity import Verbosity


def work_through(
    prepare: Callable[[Callable[[ProgressUpdate], None]], Bulk],
    workers: int,
    *,
    dry_run: bool = False,
) -> None:
    """Do all jobs, show the progress, print the counts and exit with the outcome's code.

    Of several processes that a launcher started together, only the first prints and reports
    failures in its exit code, because the launcher stops the others when one of them fails.

    Args:
        prepare: called once, with the callback for progress; returns the work.
        workers: number of processes that share the work.
        dry_run: whether to print what would be done instead.
    """
    from cascade.cli.bulk_progress import BulkProgress
    from cascade.cli.progress import printable
    from cascade.cli.verbosity import Verbosity, verbosity
    from cascade.cli.workers import check_workers, further_workers

    check_workers(workers)
    is_first = os.environ.get("RANK", "0") == "0"
    with BulkProgress(verbosity() if is_first else None) as progress:
        work = prepare(progress.update)
        if dry_run:
            _rehearse(work, verbosity() if is_first else Verbosity.QUIET)
            return
        previous = signal.signal(signal.SIGTERM, _terminate)
        try:
            with further_workers(min(workers, len(work.jobs))):
                work.run()
        finally:
            signal.signal(signal.SIGTERM, previous)
            progress.stop()
            if is_first and verbosity() > Verbosity.QUIET:
                for line in (*work.outcome().unsuitable_lines(), *work.outcome().loss_lines()):
                    typer.echo(printable(line), err=True)
                typer.echo(work.outcome().last_line(work.method.description))
    if is_first and work.outcome().exit_code:
        raise typer.Exit(work.outcome().exit_code)


def _rehearse(work: Bulk, verbosity: Verbosity) -> None:
    """Print what the work would be, and exit with the code that it would have.

    Raises:
        Exit: if pictures would fail.
    """
    from cascade.cli.progress import printable
    from cascade.cli.verbosity import Verbosity

    says_all = verbosity > Verbosity.QUIET
    outcome = work.rehearse(lambda line: typer.echo(printable(line)) if says_all else None)
    if says_all:
        for line in outcome.unsuitable_lines():
            typer.echo(printable(line), err=True)
        typer.echo(f"{outcome.last_line(f'to be {work.method.description}')}; nothing was written")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _terminate(number: int, frame: object) -> None:
    from cascade.bulk.outcome import TERMINATED

    raise SystemExit(TERMINATED)
