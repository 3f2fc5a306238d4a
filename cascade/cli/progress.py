"""Progress lines of the commands, drawn by Rich."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """Images seen, loss, rate and time left of a training run."""

    def __init__(self, name: str, total_images: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(name, total=total_images, values="starting")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def start_at(self, images: int) -> None:
        """Tell where a resumed run stands."""
        self._progress.update(self._task, completed=images)

    def update(self, values: dict[str, float]) -> None:
        """Show the values of one line of the log."""
        text = (
            f"loss {values['loss']:.4f}  grad {values['gradient_norm']:.2f}  "
            f"{values['images_per_s']:.1f} images/s"
        )
        self._progress.update(self._task, completed=values["images"], values=text)


class ReadingProgress:
    """Images read so far, of all of a source."""

    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(escape(name), total=None)

    def __enter__(self) -> ReadingProgress:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, images: int, total: int) -> None:
        """Tell how many were read."""
        self._progress.update(self._task, completed=images, total=total)


class SamplingProgress:
    """One bar per stage, moved by a pipeline's `callback_on_step_end` and drawn from then on."""

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> SamplingProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tasks:
            self._progress.stop()

    def on_step(self, pipeline: Any, step: int, timestep: int, kwargs: dict[str, Any]) -> None:
        """Advance the current stage's bar by the images of the batch."""
        name = pipeline.current_stage
        self._progress.start()
        if name not in self._tasks:
            total = self._num_images * pipeline.num_timesteps
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.advance(self._tasks[name], len(kwargs["seeds"]))
