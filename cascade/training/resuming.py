"""Resumes a run from its newest checkpoint, if it is still the same run, and says what changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade.data.training_images import TrainingImages
from cascade.training.checkpoint import Checkpoint, RunState, read_newest, restore
from cascade.training.image_list import (
    OtherImagesError,
    changed_images,
    describe_changed_labels,
    describe_difference,
    has_no_names,
    shortened,
)
from cascade.training.learning_rate import learning_rate_factor
from cascade.training.objectives.objective import Objective
from cascade.training.processes import is_main_process
from cascade.training.provenance import changed_settings, read_about
from cascade.training.run_folder import check_same_run
from cascade.training.settings import TrainingSettings

SMALL_CHANGE = 0.01  # of the learning rate, as a share of its peak
OTHER_CONTENTS = (
    "the data set's items are not those that the run began with: it is another data set, or draws "
    "random numbers in __getitem__; the run continues, but no longer gives exactly what an "
    "uninterrupted run would."
)
logger = logging.getLogger(__name__)


def resume(
    state: RunState,
    out: Path,
    identity: Mapping[str, Any],
    images: TrainingImages,
    settings: TrainingSettings,
    objective: Objective,
) -> None:
    """Load the newest checkpoint of a run, if it has any.

    Args:
        state: a run that has not begun; changed in place.
        out: folder of the run.
        identity: see `run_identity`.
        images: the training images.
        settings: settings of the run.
        objective: what the stage is trained for.

    Raises:
        OtherImagesError: if the run began with other images or labels; tensors of the same number,
            which have no names, are only warned of.
        WeightsError: if all checkpoints are damaged, or belong to another stage.
        CascadeError: if the run began with other settings.
    """
    checkpoint = read_newest(out / "checkpoints")
    if checkpoint is None:
        return
    before, now = checkpoint.values["about"], dict(identity)
    count = before["data"]["images"]
    if count != now["data"]["images"]:  # its new classes would not fit the weights either
        raise OtherImagesError(describe_difference(out, count, images.source))
    objectives = [{"objective": each["objective"]} for each in (before, now)]
    check_same_run(out, *objectives)  # what another one trains would not fit either
    restore(state, checkpoint)
    check_same_run(out, _without_hashes(before), _without_hashes(now))
    others = before["data"]["keys"] != now["data"]["keys"]
    if others and not has_no_names(out, images.source):
        raise OtherImagesError(describe_difference(out, count, images.source))
    if before["data"]["labels"] != now["data"]["labels"]:
        raise OtherImagesError(describe_changed_labels(out, images))
    if is_main_process():
        if others:
            logger.warning("%s", OTHER_CONTENTS)
        _log(checkpoint, out, images, settings)
        objective.set_progress(state.progress)
        for line in _other_length(state, out, settings, objective):
            logger.info("%s", line)


def _without_hashes(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity without the hashes of the images' names and labels, which explain nothing.

    That missing values are refused is stated, though the identity of such a run leaves it out.
    """
    data = {k: v for k, v in identity["data"].items() if k not in ("keys", "labels")}
    return {**identity, "data": {"missing": "refuse", **data}}


def _other_length(
    state: RunState, out: Path, settings: TrainingSettings, objective: Objective
) -> Iterator[str]:
    """What it changes, in words, that a run goes on with another number of images."""
    parts, seen = read_about(out).get("parts", []), state.images_seen
    recorded = parts[-1]["settings"] if parts else {}
    then = replace(settings, **{k: v for k, v in recorded.items() if hasattr(settings, k)})
    if then.images == settings.images or seen >= settings.images:
        return
    before = learning_rate_factor(seen - then.batch_size, then)
    now = learning_rate_factor(seen, settings)
    if abs(now - before) > SMALL_CHANGE:
        yield (
            f"with another number of images the learning rate goes on at {now:.1%} of its peak, "
            f"and was at {before:.1%}."
        )
    if objective.course and state.progress > seen / settings.images:
        yield f"what has begun goes on: {objective.course}."


def _log(
    checkpoint: Checkpoint, out: Path, images: TrainingImages, settings: TrainingSettings
) -> None:
    seen = checkpoint.values["images_seen"]
    if seen >= settings.images:
        logger.info("%s is complete: it has seen %s images.", out, f"{seen:,}")
        return
    logger.info(
        "resuming %s at image %s of %s, with the weights, averages and optimiser of %s.",
        out,
        f"{seen:,}",
        f"{settings.images:,}",
        checkpoint.folder.relative_to(out),
    )
    if not (out / "recipe.yaml").is_file():  # whoever wrote it compares the whole recipe
        for change in changed_settings(read_about(out), settings):
            logger.info("resuming with %s.", change)
    changed = changed_images(out, images.source)
    if changed:
        logger.warning(
            "%s of the images changed since the run began (%s); the run continues, but no longer "
            "gives exactly what an uninterrupted run would.",
            f"{len(changed):,}",
            shortened(changed),
        )
