"""Experiment trackers, through accelerate: TensorBoard, Weights & Biases, Trackio.

A tracker must not disturb training: if one fails during a run, it is dropped with a warning.
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
    """The facts about a run that trackers need when they start.

    Attributes:
        folder: folder of the run; TensorBoard writes into `tensorboard/` in it.
        id: unique id of the run, the same each time it resumes.
        config: the resolved recipe, by keys with dots.
        images_seen: number of images seen when this part of the run begins.
        tracked_images: number of images up to which an earlier, killed part sent values.
    """

    folder: Path
    id: str
    config: Mapping[str, Any]
    images_seen: int = 0
    tracked_images: int = 0


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Check that the trackers' packages are installed.

    Raises:
        CascadeError: naming a package that is missing.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise CascadeError(
                f"the tracker {name} is not installed: pip install {name}, or train without it."
            )


class Trackers:
    """Sends values and pictures to every tracker, in groups such as `train/loss`.

    When training resumes, each tracker continues the same run. Values that a killed part sent
    after its last checkpoint are deleted in TensorBoard; the other trackers cannot delete them, so
    the same steps are not sent to them again.

    Args:
        names: the trackers; may be empty.
        run: the run to track.

    Raises:
        CascadeError: if a tracker cannot be started.
    """

    def __init__(self, names: Sequence[TrackerName], run: TrackedRun) -> None:
        self._run = run
        self._trackers = {name: _start(name, run) for name in names}

    def log(self, group: str, values: Mapping[str, float], *, images: int) -> None:
        """Send numbers.

        Args:
            group: prefix of the names, such as `train`.
            values: the numbers, by name.
            images: number of images seen, which is the position on the horizontal axis.
        """
        grouped = {f"{group}/{name}": value for name, value in values.items()}
        self._each(images, lambda name, tracker: tracker.log(grouped, step=images))

    def log_picture(self, name: str, picture: Image.Image, *, images: int) -> None:
        """Send a picture.

        Args:
            name: name of the series of pictures.
            picture: the picture.
            images: number of images seen.
        """
        self._each(images, lambda kind, tracker: _log_picture(kind, tracker, name, picture, images))

    def finish(self) -> None:
        """Close all trackers."""
        self._each(None, lambda name, tracker: tracker.finish())
        self._trackers.clear()

    def _each(self, images: int | None, act: Callable[[str, Any], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            sent_before = images is not None and images <= self._run.tracked_images
            if sent_before and name != "tensorboard":
                continue
            try:
                act(name, tracker)
            except Exception as error:  # from foreign code and the network
                logger.warning("tracker %s failed and is dropped (%s).", name, error)
                del self._trackers[name]


def _start(name: str, run: TrackedRun) -> Any:
    try:
        tracker = _make(name, run)
        tracker.start()
        _store_config(name, tracker, run)
    except Exception as error:  # for example no account or no network
        reason = " ".join(str(error).split())
        raise CascadeError(
            f"tracker {name} cannot start ({reason}); fix this, or train without the tracker."
        ) from error
    return tracker


def _make(name: str, run: TrackedRun) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    make = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        return make("tensorboard", run.folder, purge_step=run.images_seen + 1)
    if name == "wandb":
        return make(PROJECT, name=run.folder.name, id=run.id, resume="allow", dir=str(run.folder))
    return make(PROJECT, name=f"{run.folder.name}-{run.id}", resume="allow")


def _store_config(name: str, tracker: Any, run: TrackedRun) -> None:
    if name != "tensorboard":
        tracker.store_init_configuration(dict(run.config))
        return
    # For TensorBoard, accelerate would store hyperparameters as a new run each time it resumes.
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
        trackio = importlib.import_module("trackio")  # accelerate cannot send pictures to it
        tracker.log({name: trackio.Image(picture)}, step=images)
