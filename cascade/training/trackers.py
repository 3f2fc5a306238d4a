"""Trackers of experiments, through accelerate: TensorBoard, Weights & Biases, Trackio.

A tracker only looks on: one that fails during a run is dropped with a warning, and the run goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from cascade.errors import CascadeError

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "cascade"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What trackers are told of a run when they start.

    Attributes:
        folder: of the run; TensorBoard writes into `tensorboard/` in it.
        id: unlike that of any other run, and the same in all parts of this one.
        config: the resolved recipe by dotted keys.
        images_seen: where this part of the run starts.
        tracked_images: up to where a part that was killed has sent values already.
    """

    folder: Path
    id: str
    config: Mapping[str, Any]
    images_seen: int = 0
    tracked_images: int = 0


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        CascadeError: naming one that is not, and how to install it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise CascadeError(
                f"train.trackers names {name}, which is not installed: pip install {name}, or "
                "leave it out."
            )


class Trackers:
    """Sends values and pictures to every tracker, in groups such as `train/loss`.

    Each goes on with the same run when training is resumed. What a killed part sent after its last
    checkpoint is taken back in TensorBoard; the others cannot take back, and are not sent it again.

    Args:
        names: of the trackers; may be none.
        run: what they are told.

    Raises:
        CascadeError: if a tracker cannot be started.
    """

    def __init__(self, names: Sequence[TrackerName], run: TrackedRun) -> None:
        self._run = run
        self._trackers = {name: _start(name, run) for name in names}

    def log(self, group: str, values: Mapping[str, float], *, images: int) -> None:
        """Send numbers, whose place on the axis is the number of images seen."""
        grouped = {f"{group}/{name}": value for name, value in values.items()}
        self._each(images, lambda name, tracker: tracker.log(grouped, step=images))

    def log_picture(self, name: str, picture: Image.Image, *, images: int) -> None:
        """Send a picture."""
        self._each(images, lambda kind, tracker: _log_picture(kind, tracker, name, picture, images))

    def finish(self) -> None:
        """Close all of them."""
        self._each(None, lambda name, tracker: tracker.finish())
        self._trackers.clear()

    def _each(self, images: int | None, act: Callable[[str, Any], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            known = images is not None and images <= self._run.tracked_images
            if known and name != "tensorboard":
                continue
            try:
                act(name, tracker)
            except Exception as error:  # of somebody else's code and network
                logger.warning("%s failed and is left out from here on (%s).", name, error)
                del self._trackers[name]


def _start(name: str, run: TrackedRun) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    make = LOGGER_TYPE_TO_CLASS[name]
    try:
        if name == "tensorboard":
            tracker = make("tensorboard", run.folder, purge_step=run.images_seen + 1)
        elif name == "wandb":
            tracker = make(
                PROJECT, name=run.folder.name, id=run.id, resume="allow", dir=str(run.folder)
            )
        else:
            tracker = make(PROJECT, name=f"{run.folder.name}-{run.id}", resume="allow")
        tracker.start()
        _store_config(name, tracker, run)
    except Exception as error:  # such as no account and no network
        reason = " ".join(str(error).split())
        raise CascadeError(
            f"tracker {name} cannot start ({reason}); leave it out of train.trackers to train "
            "without it."
        ) from error
    return tracker


def _store_config(name: str, tracker: Any, run: TrackedRun) -> None:
    if name != "tensorboard":
        tracker.store_init_configuration(dict(run.config))
        return
    # accelerate would make a new run for TensorBoard's hyperparameters, again in every part.
    rows = "\n".join(f"| {key} | {value} |" for key, value in run.config.items())
    text = f"| key | value |\n|---|---|\n{rows}"
    tracker.tracker.add_text("recipe", text, global_step=run.images_seen)


def _log_picture(kind: str, tracker: Any, name: str, picture: Image.Image, images: int) -> None:
    if kind == "tensorboard":
        pixels = np.asarray(picture.convert("RGB"))[None]
        tracker.log_images({name: pixels}, step=images, dataformats="NHWC")
    elif kind == "wandb":
        tracker.log_images({name: [picture]}, step=images)
    else:
        trackio = importlib.import_module("trackio")  # accelerate has no pictures for it
        tracker.log({name: trackio.Image(picture)}, step=images)
