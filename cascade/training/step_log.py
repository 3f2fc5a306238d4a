"""Turns the losses of steps into lines of the log, and into progress between them."""

from __future__ import annotations

import math
import time

from cascade.training.checkpoint import RunState
from cascade.training.processes import together
from cascade.training.settings import TrainingSettings
from cascade.training.watch import Watch

LOG_EVERY_STEPS = 10
PROGRESS_EVERY_S = 10.0  # when steps are slow


class StepLog:
    """Logs the mean of the last steps every `LOG_EVERY_STEPS` steps, and at the end.

    Which steps are logged follows from their number alone, so that a resumed run has the log of one
    without a gap. If steps are slow, progress is reported between these lines.

    Args:
        watch: writes the lines.
        settings: settings of the run.
        images_seen: number of images that the run has seen.
    """

    def __init__(self, watch: Watch, settings: TrainingSettings, images_seen: int) -> None:
        self.watch = watch
        self.settings = settings
        self._images = images_seen
        self.start()

    def start(self) -> None:
        """Start the clock, from which the speed is computed."""
        self._last_s = self._last_progress_s = time.monotonic()

    def step(self, state: RunState, loss: float, norm: float, factor: float) -> None:
        """Record a step, and log if it is time.

        Args:
            state: the run after the step.
            loss: mean loss of the batch; it may be not finite.
            norm: norm of the gradient.
            factor: factor of the full learning rate.
        """
        state.recent_losses.append(loss)
        now, step = time.monotonic(), state.steps + state.bad_steps
        due = step % LOG_EVERY_STEPS == 0 or state.images_seen >= self.settings.images
        if not due and now - self._last_progress_s < PROGRESS_EVERY_S:
            return
        self._last_progress_s = now
        values = self._values(state, now) | {"gradient_norm": norm, "learning_rate_factor": factor}
        if not due:
            self.watch.progress(values, images=state.images_seen)
            return
        state.recent_losses.clear()
        self._last_s, self._images = now, state.images_seen
        with together():
            self.watch.values(values, images=state.images_seen)

    def _values(self, state: RunState, now: float) -> dict[str, float]:
        finite = [loss for loss in state.recent_losses if math.isfinite(loss)]
        values = {
            "loss": sum(finite) / len(finite) if finite else math.nan,
            "images_per_s": (state.images_seen - self._images) / max(now - self._last_s, 1e-9),
        }
        return values | ({"bad_steps": state.bad_steps} if state.bad_steps else {})
