"""Progress of the bulk commands, such as `cascade upscale`, on a terminal or in a log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from cascade.cli.hints import with_options
from cascade.cli.progress import printable
from cascade.cli.verbosity import Verbosity

if TYPE_CHECKING:
    from cascade.bulk.progress import ProgressUpdate

LINE_S = 10.0  # between lines of progress in a log


class BulkProgress:
    """Shows the progress of all pictures, and that of the current one.

    On a terminal there are two bars, with notes and failures above them. A file or pipe gets a line
    per result, and every ten seconds a line about the progress, also while nothing else happens.

    Args:
        verbosity: how much to print; None for nothing at all.
        console: where to write; default: the error output.
        line_s: seconds between lines of progress in a file or pipe.
    """

    def __init__(
        self,
        verbosity: Verbosity | None = Verbosity.NORMAL,
        *,
        console: Console | None = None,
        line_s: float = LINE_S,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._kinds = _printed_kinds(verbosity, self._console.is_terminal)
        self._bars = _Bars(self._console)
        self._has_progress = "note" in self._kinds
        self._lines = _Ticker(line_s, self._print_line)
        self._latest: ProgressUpdate | None = None

    def __enter__(self) -> BulkProgress:
        if self._has_progress and not self._console.is_terminal:
            self._lines.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def update(self, progress: ProgressUpdate) -> None:
        """Show how far the work is, and the message of this update."""
        if progress.message and progress.kind in self._kinds:
            is_failure = progress.kind == "failure"
            self._print(with_options(progress.message) if is_failure else progress.message)
        if progress.name and self._has_progress:
            self._latest = progress
            if self._console.is_terminal:
                self._bars.move(progress)

    def stop(self) -> None:
        """Remove the bars and write no further line."""
        self._bars.stop()
        self._lines.stop()

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()

    def _print_line(self) -> None:
        if self._latest is not None:
            self._print(progress_line(self._latest))


def progress_line(progress: ProgressUpdate) -> str:
    """The progress in one line of a log."""
    from cascade.bulk.workload import rough_duration

    parts = [f"{progress.finished:,} of {progress.total:,} images"]
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if progress.part:
        page = f" ({progress.page})" if progress.page else ""
        parts.append(f"{progress.name} {progress.part:.0%}{page}")
    if progress.left_s is not None:
        parts.append(f"about {rough_duration(progress.left_s)} left")
    return ", ".join(parts)


def _printed_kinds(verbosity: Verbosity | None, is_terminal: bool) -> set[str]:
    """The kinds of messages that are printed; on a terminal, bars stand for the results."""
    if verbosity is None:
        return set()
    if verbosity is Verbosity.QUIET:
        return {"failure"}
    if verbosity is Verbosity.VERBOSE:
        return {"failure", "note", "result", "detail"}
    return {"failure", "note"} if is_terminal else {"failure", "note", "result"}


class _Bars:
    """A bar for all pictures and one for the current picture, which vanish at the end."""

    def __init__(self, console: Console) -> None:
        ellipsis = Column(no_wrap=True, overflow="ellipsis", min_width=20, max_width=40)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=ellipsis, markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            console=console,
            transient=True,
        )
        self._all: TaskID | None = None
        self._current: TaskID | None = None
        self._name = ""

    def move(self, progress: ProgressUpdate) -> None:
        """Show how far the work is."""
        if self._all is None or self._current is None:
            self._all = self._progress.add_task("all images", total=progress.total, count="")
            self._current = self._progress.add_task("", total=1.0, count="")
            self._progress.start()
        if progress.name != self._name:
            self._name = progress.name
            self._progress.reset(self._current, description=printable(progress.name))
        self._progress.update(self._current, completed=progress.part, count=progress.page)
        self._progress.update(
            self._all,
            completed=progress.finished + progress.part * (not progress.message),
            count=_count(progress),
        )

    def stop(self) -> None:
        if self._all is not None:
            self._progress.stop()


def _count(progress: ProgressUpdate) -> str:
    from cascade.bulk.workload import rough_duration

    parts = [f"{progress.finished}/{progress.total}"]
    if progress.failed:
        parts.append(f"{progress.failed} failed")
    if progress.left_s is not None:
        parts.append(f"about {rough_duration(progress.left_s)} left")
    return ", ".join(parts)


class _Ticker:
    """Calls a function again and again in a thread, because one step of the work may take long."""

    def __init__(self, interval_s: float, function: Callable[[], None]) -> None:
        self._interval_s = interval_s
        self._function = function
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._interval_s):
            self._function()
