"""Progress bars and progress lines of the commands, drawn by Rich."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from cascade.cli.verbosity import Verbosity, verbosity

LINE_S = 30


def is_quiet() -> bool:
    """Whether the running command shows no progress."""
    return verbosity() == Verbosity.QUIET


class TrainingProgress:
    """Shows images seen, loss, gradient norm, rate and remaining time of a training run.

    On a terminal, one line is redrawn; to a file or pipe, a plain line is written every 30 seconds.
    With --quiet there is neither.

    Args:
        name: name of the run.
        total_images: number of images at which the run ends.
        console: where to write; default: the error output.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        name: str,
        total_images: int,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._total = total_images
        self._clock = clock
        self._console = console or Console(stderr=True)
        self._first: tuple[float, float] | None = None  # images and time of the first values
        self._last_line_s = -math.inf
        ellipsis = Column(no_wrap=True, overflow="ellipsis", max_width=18)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=ellipsis, markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[values]}", markup=False),
            console=self._console,
            expand=True,
            disable=is_quiet(),
        )
        self._task = self._progress.add_task(name, total=total_images, values="starting")

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def start_at(self, images: int) -> None:
        """Set the position of a resumed run."""
        self._progress.update(self._task, completed=images)

    def update(self, values: Mapping[str, float]) -> None:
        """Show one line of the training log."""
        text = self._text(values)
        self._progress.update(self._task, completed=values["images"], values=text)
        if self._console.is_terminal or self._progress.disable:
            return
        if values["images"] >= self._total or self._clock() - self._last_line_s >= LINE_S:
            self._last_line_s = self._clock()
            self._console.file.write(f"{self._name}: {text}\n")
            self._console.file.flush()

    def _text(self, values: Mapping[str, float]) -> str:
        images = int(values["images"])
        return (
            f"{images:,}/{self._total:,}  loss {values['loss']:.3g}  "
            f"grad {values['gradient_norm']:.2g}  {values['images_per_s']:.3g}/s  "
            f"{short_duration(self._left_s(values))}"
        )

    def _left_s(self, values: Mapping[str, float]) -> float:
        """Remaining time at the mean rate since start, which includes checkpoints and samples."""
        now, images = self._clock(), values["images"]
        if self._first is None:
            self._first = (images, now)
        first_images, first_s = self._first
        rate = values["images_per_s"]
        if images > first_images and now > first_s:
            rate = (images - first_images) / (now - first_s)
        return (self._total - images) / rate if rate > 0 else math.inf


def short_duration(seconds: float) -> str:
    """Format seconds as 1:05, 2:03:09 or 3 d 04 h."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02d} h"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def printable(text: str) -> str:
    """Escape line breaks and terminal control characters, which file names may contain."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class _Lines:
    """Lines about the progress in a file or pipe: the first one after a while, the last at the end.

    Args:
        console: where to write; a terminal gets no lines.
        with_ends: whether a task that took no while gets a line at its end.
        clock: returns the time in seconds.
    """

    def __init__(
        self, console: Console, *, with_ends: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._with_ends = with_ends
        self._clock = clock
        self._last_s = clock()
        self._has_line: set[str] = set()

    def show(self, task: str, done: int, total: int) -> None:
        """Write a line about a task if it is time for one."""
        if self._console.is_terminal or is_quiet():
            return
        is_end = done >= total and (self._with_ends or task in self._has_line)
        if is_end or self._clock() - self._last_s >= LINE_S:
            self._last_s = self._clock()
            self._has_line.add(task)
            self._console.file.write(f"{printable(task)}: {done:,}/{total:,}\n")
            self._console.file.flush()


class TaskProgress:
    """One bar per task; in a file or pipe, a line every 30 seconds.

    Args:
        with_ends: whether a file or pipe gets a line at the end of every task.
        console: where to write; default: the error output.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        *,
        with_ends: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=is_quiet() or not console.is_terminal,
        )
        self._lines = _Lines(console, with_ends=with_ends, clock=clock)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TaskProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, task: str, done: int, total: int) -> None:
        """Move the bar of a task; see `cascade.reporting.progress.Progress`."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
        self._progress.update(self._tasks[task], completed=done)
        self._lines.show(task, done, total)


class SamplingProgress:
    """One bar per stage, moved by a pipeline's `callback_on_step_end`; in a pipe, lines.

    Args:
        num_images: number of images to generate.
    """

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=console,
            disable=is_quiet() or not console.is_terminal,
        )
        self._lines = _Lines(console, with_ends=True)
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}  # steps of all images

    def __enter__(self) -> SamplingProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tasks:
            self._progress.stop()

    def leave_out(self, num_images: int) -> None:
        """Do not count images that are there already; to be called before the first step."""
        self._num_images -= num_images

    def on_step(self, pipeline: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> None:
        """Advance the bar of the current stage by one step of the whole batch."""
        name, total = pipeline.current_stage, self._num_images * pipeline.num_timesteps
        self._progress.start()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
            self._done[name] = 0
        self._done[name] += len(kwargs["seeds"])
        self._progress.update(self._tasks[name], completed=self._done[name])
        images = self._done[name] // pipeline.num_timesteps
        self._lines.show(f"{name}, images", images, self._num_images)
