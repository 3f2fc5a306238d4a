"""Makes a run observable: log, progress, trackers, sample grids, meters, the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from cascade.data.remote import without_secrets
from cascade.data.training_images import TrainingImages
from cascade.errors import CascadeError, RecipeError
from cascade.imaging.writing import save_png
from cascade.recipe.reading import load_stage_recipe
from cascade.saving.differences import flat
from cascade.stage import Stage
from cascade.training.checkpoint import RunState
from cascade.training.grids import draw_samples, sample_grid, shown_batch
from cascade.training.image_list import write_image_list
from cascade.training.meters import measure
from cascade.training.objectives.objective import Objective
from cascade.training.provenance import begin_part, hardware, read_about, write_about
from cascade.training.report import write_report
from cascade.training.run_folder import RunLog, remove_undone
from cascade.training.settings import TrainingSettings
from cascade.training.trackers import TrackedRun, Trackers, check_trackers
from cascade.training.validation_figures import VALIDATION

logger = logging.getLogger(__name__)


class Watch:
    """Records and displays the course of a run, in the main process only.

    Args:
        out: folder of the run.
        settings: settings of the run.
        accelerator: tells the processes apart.
        on_log: called with each line of the training log, and the `total` number of images; if
            steps are slow, also between the lines of the log.

    Raises:
        CascadeError: if the package of a tracker is missing.
    """

    def __init__(
        self,
        out: Path,
        settings: TrainingSettings,
        accelerator: Accelerator,
        on_log: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        check_trackers(settings.trackers)
        self.out = out
        self.settings = settings
        self.processes = accelerator.num_processes
        self.device = accelerator.device
        self.active = accelerator.is_main_process
        self.on_log = on_log
        self.log = RunLog(out / "log.jsonl")
        self._tracked_images = 0
        self._seconds_before = 0.0
        self._started_s = time.monotonic()
        self._trackers: Trackers | None = None

    def rewind(self, images_seen: int) -> None:
        """Go back to the checkpoint that a run resumes from, and remove what is later.

        Args:
            images_seen: position of the checkpoint; 0 for a new run.
        """
        if self.active:
            self._tracked_images = max((line["images"] for line in self.log.read()), default=0)
            self.log.rewind(images_seen)
            remove_undone(self.out, images_seen)
            seconds = [line.get("seconds", 0.0) for line in self.log.read()]
            self._seconds_before = max(seconds, default=0.0)

    @contextmanager
    def watching(self, state: RunState, images: TrainingImages) -> Iterator[None]:
        """Observe one part of the run; the report is written even if the block fails."""
        if not self.active:
            yield
            return
        about = read_about(self.out)
        if state.images_seen < self.settings.images or not about:
            about = begin_part(
                about,
                state.stage,
                images,
                self.settings,
                images_seen=state.images_seen,
                hardware=hardware(self.device, self.processes),
            )
            write_about(self.out, about)
            write_image_list(self.out, images)
            self._trackers = self._start_trackers(state, about["id"])
        self._started_s = time.monotonic()
        try:
            yield
        finally:
            self._end(about, state)

    def _start_trackers(self, state: RunState, run_id: str) -> Trackers:
        run = TrackedRun(
            folder=self.out.resolve(),
            id=run_id,
            config=self._config(state.stage),
            images_seen=state.images_seen,
            tracked_images=self._tracked_images,
        )
        return Trackers(self.settings.trackers, run)

    def _config(self, stage: Stage) -> dict[str, Any]:
        """The resolved recipe by keys with dots, or settings and stage if there is no recipe."""
        try:
            recipe = load_stage_recipe(self.out / "recipe.yaml").model_dump(mode="json")
        except RecipeError:
            recipe = {"train": asdict(self.settings), "stage": stage.config()}
        return {key: _plain(value) for key, value in flat(recipe).items()}

    def _end(self, about: dict[str, Any], state: RunState) -> None:
        """Close trackers and write the report; its errors must not hide or replace the run's."""
        if self._trackers is not None:
            self._trackers.finish()
        try:
            write_about(self.out, about | {"broken": state.broken})
            write_report(self.out)
        except CascadeError as error:
            logger.warning("no report: %s", error)

    def values(self, values: Mapping[str, float], *, images: int) -> None:
        """Log the values of the last steps.

        Args:
            values: means over the last steps, by name.
            images: number of images seen.
        """
        if not self.active:
            return
        line = {"images": images, "seconds": self._seconds(), **values}
        self.log.append(line)
        if self._trackers is not None:
            self._trackers.log("train", values, images=images)
        self._report(line)

    def progress(self, values: Mapping[str, float], *, images: int) -> None:
        """Report values of the last steps without logging them; the arguments are as above."""
        if self.active:
            self._report({"images": images, "seconds": self._seconds(), **values})

    def _report(self, line: Mapping[str, float]) -> None:
        if self.on_log is not None:
            self.on_log({**line, "total": self.settings.images})

    def samples(
        self, stage: Stage, data: TrainingImages, objective: Objective, *, images: int
    ) -> None:
        """Draw samples, save them as a grid, and measure the stage.

        Args:
            stage: a stage with averaged weights.
            data: the training images; the first of them condition the samples.
            objective: what the stage is trained for; it may have meters of its own.
            images: number of images seen.
        """
        if not self.active:
            return
        precision = self.settings.precision
        batch = shown_batch(data, self.settings.sample_count).to(stage.device)
        samples = draw_samples(stage, batch, precision=precision)
        grid = sample_grid(stage, batch, data.as_pictures(samples))
        save_png(grid, self.out / "samples" / f"{images:012d}.png")
        meters = measure(stage, batch, samples, precision=precision)
        meters |= objective.meters(stage, batch, samples, precision)
        self.log.append({"images": images, "seconds": self._seconds(), "kind": "meters", **meters})
        if self._trackers is not None:
            self._trackers.log("meters", meters, images=images)
            self._trackers.log_picture("samples", grid, images=images)

    def validation(self, values: Mapping[str, float], digest: str, *, images: int) -> None:
        """Log a measurement on held-out images.

        Args:
            values: the figures, by name.
            digest: digest of the images.
            images: number of images seen.
        """
        if not self.active:
            return
        head = {"images": images, "seconds": self._seconds(), "kind": VALIDATION}
        self.log.append({**head, VALIDATION: digest, **values})
        if self._trackers is not None:
            self._trackers.log(VALIDATION, values, images=images)

    def _seconds(self) -> float:
        """Training time of all parts of the run, without steps that a kill undid."""
        return round(self._seconds_before + time.monotonic() - self._started_s, 3)


def _plain(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, (int, float, bool)):
        return value
    return without_secrets(str(value))  # URLs may contain keys
