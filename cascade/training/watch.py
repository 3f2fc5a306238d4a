"""What a run shows while it goes: log, progress, trackers, grids of samples, meters, the report."""

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
from cascade.recipe import load_stage_recipe
from cascade.stage import Stage
from cascade.training.checkpoint import RunState
from cascade.training.grids import draw_samples, sample_grid, shown_batch
from cascade.training.meters import measure
from cascade.training.provenance import begin_part, read_about, write_about
from cascade.training.report import write_report
from cascade.training.run_folder import RunLog, flat
from cascade.training.settings import TrainingSettings
from cascade.training.trackers import TrackedRun, Trackers, check_trackers

logger = logging.getLogger(__name__)


class Watch:
    """Writes down and shows how a run goes. Only the main process does; in others it is silent.

    Args:
        out: folder of the run.
        settings: of the run.
        accelerator: knows which process this is.
        progress: called with each line of the log of training, and `total` images.

    Raises:
        CascadeError: if the package of a tracker is missing.
    """

    def __init__(
        self,
        out: Path,
        settings: TrainingSettings,
        accelerator: Accelerator,
        progress: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        check_trackers(settings.trackers)
        self.out = out
        self.settings = settings
        self.processes = accelerator.num_processes
        self.active = accelerator.is_main_process
        self.progress = progress
        self.log = RunLog(out / "log.jsonl")
        self._tracked_images = 0
        self._seconds_before = 0.0
        self._started_s = time.monotonic()
        self._trackers: Trackers | None = None

    def rewind(self, images_seen: int) -> None:
        """Go back to the checkpoint that a run goes on from."""
        if self.active:
            self._tracked_images = max((line["images"] for line in self.log.read()), default=0)
            self.log.rewind(images_seen)
            seconds = [line.get("seconds", 0.0) for line in self.log.read()]
            self._seconds_before = max(seconds, default=0.0)

    @contextmanager
    def watching(self, state: RunState, images: TrainingImages) -> Iterator[None]:
        """While a part of the run goes on; at its end, however it ends, the report is written."""
        if not self.active:
            yield
            return
        about = read_about(self.out)
        if state.images_seen < self.settings.images or not about:
            about = begin_part(
                about, state.stage, images, images_seen=state.images_seen, processes=self.processes
            )
            write_about(self.out, about)
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
        """The resolved recipe; what stands for it where a run was made without one."""
        try:
            recipe = load_stage_recipe(self.out / "recipe.yaml").model_dump(mode="json")
        except RecipeError:
            recipe = {"train": asdict(self.settings), "stage": stage.config()}
        return {key: _plain(value) for key, value in flat(recipe).items()}

    def _end(self, about: dict[str, Any], state: RunState) -> None:
        """Nothing of this may hide an error of the run, or make a run fail that did not."""
        if self._trackers is not None:
            self._trackers.finish()
        try:
            write_about(self.out, about | {"broken": state.broken})
            write_report(self.out)
        except CascadeError as error:
            logger.warning("no report: %s", error)

    def values(self, values: Mapping[str, float], *, images: int) -> None:
        """Take the values of the last steps."""
        if not self.active:
            return
        line = {"images": images, "seconds": self._seconds(), **values}
        self.log.append(line)
        if self._trackers is not None:
            self._trackers.log("train", values, images=images)
        if self.progress is not None:
            self.progress({**line, "total": self.settings.images})

    def samples(self, stage: Stage, shown: TrainingImages, *, images: int) -> None:
        """Draw samples with averaged weights, show them and measure the stage.

        Args:
            stage: with averaged weights.
            shown: the training images, of which the first are shown.
            images: how many the run has seen.
        """
        if not self.active:
            return
        precision = self.settings.precision
        batch = shown_batch(shown, self.settings.sample_count).to(stage.device)
        samples = draw_samples(stage, batch, precision=precision)
        grid = sample_grid(stage, batch, samples)
        save_png(grid, self.out / "samples" / f"{images:012d}.png")
        meters = measure(stage, batch, samples, precision=precision)
        self.log.append({"images": images, "seconds": self._seconds(), "kind": "meters", **meters})
        if self._trackers is not None:
            self._trackers.log("meters", meters, images=images)
            self._trackers.log_picture("samples", grid, images=images)

    def _seconds(self) -> float:
        """Trained in all parts that led here; what was lost to a kill is not counted."""
        return round(self._seconds_before + time.monotonic() - self._started_s, 3)


def _plain(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, (int, float, bool)):
        return value
    return without_secrets(str(value))  # keys of URLs are no one's business
