"""Measures the validation loss of a run, keeps its best stage, and says when to stop.

A measurement changes nothing about the training: it draws from seeds of its own, on a copy of the
stage with averaged weights. Images, crops, noise and times are the same every time, so that the
curve shows the weights alone. As many training images are measured in the same way, for comparison.

Shapes: B images of a chunk.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.data.batches import collate
from cascade.data.training_images import TrainingImages
from cascade.devices import uses_bf16
from cascade.diffusion.noise import derive_seed
from cascade.errors import DataError
from cascade.stage import Stage
from cascade.training.best_stage import BestStage, read_best, write_best
from cascade.training.image_list import keys_digest
from cascade.training.objectives.objective import Objective
from cascade.training.parting import waited
from cascade.training.processes import all_of, together
from cascade.training.settings import TrainingSettings
from cascade.training.validation_figures import (
    TRAINING_LOSS,
    VALIDATION,
    has_originals,
    losses,
    losses_by_level,
    task_figures,
)
from cascade.training.watch import Watch

CHUNK_IMAGES = 32  # at most, in one pass of the network
FEWEST_DRAWS = 64  # of noise and time, for a mean over all noise levels
LEVEL_IMAGES = 64  # at most, whose loss is measured at each of the noise levels
MEASUREMENTS = 10  # in a run, unless they would be too close to each other or too far apart
LONGEST_INTERVAL_IMAGES = 50_000
SHORTEST_INTERVAL = 16  # times the images measured; one costs as much as training on
# one and a half times as many
Values = dict[str, list[float]]  # of each image, by figure
Figures = Callable[[Stage, Batch, int], dict[str, Tensor]]  # of a batch and its first position
Task = Callable[[Stage], tuple[Values, tuple[str, ...]]]  # measures a chunk, and names broken ones
logger = logging.getLogger(__name__)


class Measured(NamedTuple):
    """The figures of one chunk of images.

    Attributes:
        place: position of the chunk.
        values: values of each image by figure, as lists that other processes can receive.
        broken: images that could not be used, as `name: reason`.
    """

    place: int
    values: Values
    broken: tuple[str, ...]


class Validation:
    """Measures a run on held-out images, in all of its processes.

    Args:
        out: folder of the run.
        images: the held-out images.
        training: the training images.
        objective: what the stage is trained for.
        settings: settings of the run.
        accelerator: tells the processes apart.
        watch: writes the log.
        sharded: whether only the main process has the averaged weights.

    Attributes:
        best: the measurement of the best stage so far; None before the first one.

    Raises:
        DataError: if the held-out images were read for another stage.
        ContractError: if their missing values are masked, and the objective counts all values.
    """

    def __init__(
        self,
        out: Path,
        images: TrainingImages,
        training: TrainingImages,
        objective: Objective,
        settings: TrainingSettings,
        accelerator: Accelerator,
        watch: Watch,
        *,
        sharded: bool,
    ) -> None:
        if images.contract.space != training.contract.space:
            raise DataError(
                f"the validation images were read as {images.contract.space}, the training images "
                f"as {training.contract.space}; read both for the same stage."
            )
        if images.masks_missing:
            objective.check_leaves_out_missing()
        self.out = out
        self.images, self.training = images.fixed(), training.fixed()
        self.objective = objective
        self.settings = settings
        self.accelerator = accelerator
        self.watch = watch
        self.sharded = sharded
        self.best: BestStage | None = None
        self._losses: list[float] = []
        self._measured_at: list[int] = []  # images seen, on whichever validation images
        self._original_images = training
        self._broken: set[str] = set()
        sets = (len(images.source), len(training.source))
        self._count = min(settings.validate_count, *sets)
        self._digest = self._digest_of_images()

    def resume(self) -> None:
        """Take over the measurements of the run's earlier parts, as far as it resumes from them."""
        lines = self.watch.log.read() if self.watch.active else []
        own = [each for each in lines if each.get("kind") == VALIDATION]
        if any(each.get("validation") != self._digest for each in own):
            logger.warning(
                "the validation images or the precision are not those that the run was measured "
                "with before; its best stage is chosen again."
            )
        facts = [(each["images"], each["loss"], each["validation"]) for each in own]
        measured = [BestStage(*each) for each in all_of(self.accelerator, facts)]
        same = [each for each in measured if each.validation == self._digest]
        self._losses = [each.loss for each in same]
        self._measured_at = [each.images for each in measured]
        best = read_best(self.out)
        self.best = best if best in same else None  # else of steps that a kill undid

    @property
    def interval_images(self) -> int:
        """Number of images between measurements; 0 for none."""
        return interval_images(self.settings, self._count)

    @property
    def exhausted(self) -> bool:
        """Whether the validation loss has not fallen for as long as the settings allow."""
        return 0 < self.settings.patience <= waited(self._losses)

    def lacks(self, images_seen: int) -> bool:
        """Whether a measurement that is due at a checkpoint is missing, as after a kill.

        Args:
            images_seen: number of images seen in the checkpoint.
        """
        every, settings = self.interval_images, self.settings
        if every <= 0 or images_seen in (0, *self._measured_at):
            return False
        before = images_seen - settings.batch_size
        return images_seen // every > before // every or images_seen >= settings.images

    def measure(self, stage: Stage, *, images_seen: int) -> None:
        """Measure, log, and keep the stage if it is the best; all processes must call it.

        Args:
            stage: the stage with averaged weights; if sharded, only the main process has them.
            images_seen: number of images seen.

        Raises:
            DataError: if too many held-out images cannot be used.
            OutputError: if the best stage cannot be written.
        """
        with together():
            chunks = self._measured_share(stage)
        chunks = sorted(all_of(self.accelerator, chunks))
        values = combined([each.values for each in chunks])
        self._warn(chunks)
        self._losses.append(values["loss"])
        best = BestStage(images_seen, values["loss"], self._digest)
        is_best = math.isfinite(best.loss) and (self.best is None or best.loss < self.best.loss)
        self.best = best if is_best else self.best
        with together():
            if self.accelerator.is_main_process:
                self._record(values, images_seen)
                if is_best:
                    self._keep(stage, best)

    # ---- measuring ------------------------------------------------------------------------------

    def _measured_share(self, stage: Stage) -> list[Measured]:
        """The figures of this process's chunks; which process measures one changes nothing."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        if self.sharded:
            processes = 1
            if not self.accelerator.is_main_process:
                return []
        tasks = [
            *self._tasks(self.images, self._figures),
            *self._tasks(self.training, self._training_figures),
        ]
        return [
            Measured(place, *task(stage))
            for place, task in enumerate(tasks)
            if place % processes == rank
        ]

    def _tasks(self, images: TrainingImages, figures: Figures) -> list[Task]:
        """Cut what is measured into chunks; few images are measured with several noises each."""
        size = max(1, min(CHUNK_IMAGES, self.settings.batch_size))
        draws = self._count * math.ceil(FEWEST_DRAWS / self._count)
        chunks = [range(first, min(first + size, draws)) for first in range(0, draws, size)]
        return [partial(_measured, images, self._count, chunk, figures) for chunk in chunks]

    def _figures(self, stage: Stage, batch: Batch, first: int) -> dict[str, Tensor]:
        """The figures of held-out images, of which `first` were measured before."""
        precision = self.settings.precision
        values = {"loss": losses(stage, self.objective, batch, precision=precision)}
        if first < (most := min(LEVEL_IMAGES, self._count)):
            part = batch.first(most - first)
            values |= losses_by_level(stage, part, precision=precision)
        sampled = min(self.settings.sample_count, self._count) - first
        if sampled > 0 and has_originals(stage):
            values |= task_figures(stage, batch.first(sampled), precision=precision)
        return values

    def _training_figures(self, stage: Stage, batch: Batch, first: int) -> dict[str, Tensor]:
        loss = losses(stage, self.objective, batch, precision=self.settings.precision)
        return {TRAINING_LOSS: loss}

    # ---- results --------------------------------------------------------------------------------

    def _record(self, values: Mapping[str, float], images_seen: int) -> None:
        """Log a measurement in the main process."""
        self.watch.validation(values, self._digest, images=images_seen)
        best, place = self.best, ""
        if best is not None:
            is_best = best.images == images_seen
            place = ", the lowest so far" if is_best else f", lowest after {best.images:,} images"
        logger.info(
            "validation loss %.4g after %s images (training images %.4g)%s.",
            values["loss"],
            f"{images_seen:,}",
            values[TRAINING_LOSS],
            place,
        )
        if self.exhausted:
            logger.info(
                "stopping early: the validation loss has not fallen in %s measurements.",
                self.settings.patience,
            )

    def _keep(self, stage: Stage, best: BestStage) -> None:
        complete = copy.copy(stage)  # completing changes the contract, not the weights
        self.objective.finish(complete, self._original_images)
        write_best(self.out, complete, best)

    def _warn(self, chunks: Sequence[Measured]) -> None:
        """Log each broken image once."""
        for name in dict.fromkeys(name for each in chunks for name in each.broken):
            if name not in self._broken and self.accelerator.is_main_process:
                logger.warning("skipping a broken validation image: %s", name)
            self._broken.add(name)

    def _digest_of_images(self) -> str:
        """A hash of everything that decides what is measured, besides the weights."""
        images, precision = self.images, self.settings.precision
        facts = (
            keys_digest(images.source),
            images.augmentation,
            self._count,
            "bf16" if uses_bf16(self.accelerator.device, precision) else "fp32",
            *(["mask"] if images.masks_missing else []),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def interval_images(settings: TrainingSettings, measured: int) -> int:
    """Number of training images between measurements of `measured` images; 0 for none."""
    if settings.validate_every_images is not None:
        return settings.validate_every_images
    share = max(1, settings.images // MEASUREMENTS)
    if settings.patience == 0:  # else the run's end depends on the measurements
        draws = measured * math.ceil(FEWEST_DRAWS / measured)
        share = max(share, SHORTEST_INTERVAL * draws)
    return min(LONGEST_INTERVAL_IMAGES, share)


def combined(chunks: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Average each figure over all images; the sum does not depend on how they were shared out."""
    values: dict[str, list[float]] = {}
    for chunk in chunks:
        for name, each in chunk.items():
            values.setdefault(name, []).extend(each)
    return {
        name: float(torch.tensor(each, dtype=torch.float64).mean()) for name, each in values.items()
    }


def _measured(
    images: TrainingImages, count: int, draws: range, figures: Figures, stage: Stage
) -> tuple[Values, tuple[str, ...]]:
    """The figures of a chunk of the first images, and those in it that could not be used."""
    batch = collate([images[draw % count] for draw in draws])
    seeds = tuple(derive_seed("validation", draw) for draw in draws)
    batch = replace(batch, seeds=seeds)  # as many training images get the same noise and times
    values = figures(stage, batch.to(stage.device), draws.start)
    return {name: each.tolist() for name, each in values.items()}, batch.broken
