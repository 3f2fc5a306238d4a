"""The training loop of one stage, on accelerate.

Run again in the same folder, it resumes from the newest checkpoint.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from cascade.conditioning.batch import Batch
from cascade.data.batches import PositionBatches, load_batches
from cascade.data.tensors import TensorDataset
from cascade.data.training_images import TrainingImages, as_images
from cascade.errors import CascadeError, DataError, OtherProcessError
from cascade.saving.atomic import atomic_folder, check_writable_folder
from cascade.saving.stage_folder import stage_entries
from cascade.stage import Stage
from cascade.training.averaged_stage import AveragedStage
from cascade.training.averaging import STORED_WIDTHS, PowerAverage, snapshot_folder
from cascade.training.buffers import changing_buffers, settle_buffers
from cascade.training.checkpoint import RunState, save_checkpoint
from cascade.training.data_log import DataLog
from cascade.training.failures import explained_errors
from cascade.training.learning_rate import set_learning_rate
from cascade.training.objectives.objective import Learner, Objective
from cascade.training.objectives.table import make_objective
from cascade.training.optimiser import make_optimisers
from cascade.training.processes import (
    StepVote,
    agree,
    check_same,
    in_step,
    make_accelerator,
    share_contract,
    together,
)
from cascade.training.resuming import resume
from cascade.training.run_folder import run_identity
from cascade.training.run_lock import RunLock
from cascade.training.settings import TrainingSettings
from cascade.training.sharding import asks_for_sharding, shard
from cascade.training.step_log import StepLog
from cascade.training.steps import accumulate_gradients, clip, seed_dropout, skip_step, take_step
from cascade.training.stopping import stop_on_signal
from cascade.training.validation import Validation
from cascade.training.watch import Watch

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a stage and leaves it, with averaged weights, in `out/stage`.

    Args:
        stage: the stage to train; its weights are changed.
        images: the training images: `TrainingImages`, or a data set of tensors (C, H, W) in
            [-1, 1], see `TensorSource`; these are mirrored half of the time, unless they are
            latents, and not cropped.
        out: folder of the run, for checkpoints, samples, log and the trained stage.
        settings: settings of the run.
        validation: held-out images, read as the training images are, whose loss is measured on a
            schedule; None for no measurements.
        report: called with each line of the training log, and the `total` number of images; if
            steps are slow, also between the lines of the log.
        device: where to train, such as `cuda:1`; see `make_accelerator`.
        objective: the loss, if it needs more than its name in `settings`.

    Raises:
        OutputError: if the folder cannot be written.
        WeightsError: if the stage could not be loaded again after training, or the folder contains
            checkpoints of another stage, or only incomplete ones.
        OtherImagesError: if the run in the folder began with other images or labels.
        DataError: if the images do not fit the stage.
        CascadeError: if the objective does not fit the stage or counts missing values that are
            masked, settings exclude each other, the run in the folder began with other settings, a
            tracker is not installed, the device cannot be used, or the processes of the run found
            different images or checkpoints.
    """

    def __init__(
        self,
        stage: Stage,
        images: TrainingImages | TensorDataset,
        out: Path,
        settings: TrainingSettings,
        *,
        validation: TrainingImages | TensorDataset | None = None,
        report: Callable[[dict[str, float]], None] | None = None,
        device: str | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.out = out
        self.settings = settings
        self.stop_requested = False
        self.accelerator = make_accelerator(device)
        torch.manual_seed(settings.seed)
        with explained_errors(settings), together():
            self.images = images = as_images(images, stage.contract, seed=settings.seed)
            stage.check_settings(stage.sampling)
            self.objective = objective or make_objective(settings.objective)
            self.objective.check(stage)
            if images.masks_missing:
                self.objective.check_leaves_out_missing()
            self.identity = run_identity(settings, stage, images, self.objective.identity())
            self._check_share()
            self.sharded = asks_for_sharding() and self.accelerator.num_processes > 1
            check_writable_folder(out)
            self.watch = Watch(out, settings, self.accelerator, report)
            self.lock = RunLock(out) if self.accelerator.is_main_process else None
        with explained_errors(settings), together():  # the lock removed leftovers before
            self.averaged = AveragedStage(stage, self.accelerator, sharded=self.sharded)
            learner = self._prepare_learner(stage)
            self.state = self._begin_or_resume(stage)
            self.data_log = DataLog(images, self.accelerator, self.state.broken)
            self.validation = self._make_validation(validation)
        if self.validation is not None:
            self.validation.resume()
        counts = {
            "images": len(images.source),
            "images seen in the newest checkpoint": self.state.images_seen,
        }
        check_same(self.accelerator, counts)
        copied = self.accelerator.num_processes > 1 and not self.sharded
        self.model: nn.Module = self.accelerator.prepare_model(learner) if copied else learner
        self.buffers = changing_buffers(self.state.stage, self.state.learned)
        self.step_log = StepLog(self.watch, settings, self.state.images_seen)

    def _check_share(self) -> None:
        processes = self.accelerator.num_processes
        if self.settings.batch_size % processes:
            raise CascadeError(
                f"the batch size must be a multiple of the {processes} processes, got "
                f"{self.settings.batch_size}."
            )

    def _make_validation(self, images: TrainingImages | TensorDataset | None) -> Validation | None:
        is_measured = images is not None and self.settings.validate_every_images != 0
        if self.settings.patience > 0 and not is_measured:
            raise CascadeError(
                "an early stop needs a validation loss; give validation images and an interval at "
                "which to measure them, or no patience."
            )
        if images is None:
            return None
        return Validation(
            self.out,
            as_images(images, self.images.contract, seed=self.settings.seed),
            self.images,
            self.objective,
            self.settings,
            self.accelerator,
            self.watch,
            sharded=self.sharded,
        )

    def _prepare_learner(self, stage: Stage) -> Learner:
        """Put stage and objective on this process's device, as one module that DDP can wrap."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        self.objective.begin(stage, device)
        learner = Learner(stage, self.objective)
        if self.sharded:
            shard(learner, self.settings, device=device, processes=processes)
        else:
            learner.to(device)
        learner.train()
        if self.settings.gradient_checkpointing:
            if not hasattr(stage.trunk, "enable_gradient_checkpointing"):
                raise CascadeError(
                    f"{type(stage.trunk).__name__} has no gradient checkpointing; train without it."
                )
            stage.trunk.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]
        if self.settings.compile:
            stage.trunk.compile()
        return learner

    def _begin_or_resume(self, stage: Stage) -> RunState:
        widths = STORED_WIDTHS if self.settings.snapshot_every_images > 0 else ()
        state = RunState(
            stage,
            EMAModel(stage.parameters(), decay=self.settings.ema_decay, foreach=True),
            make_optimisers(stage, self.settings, self.objective.learned),
            [PowerAverage(list(stage.parameters()), width) for width in widths],
            self.objective.learned,
        )
        resume(state, self.out, self.identity, self.images, self.settings, self.objective)
        self.watch.rewind(state.images_seen)
        return state

    def run(self) -> Stage:
        """Train to the end, or until SIGTERM or Ctrl-C, after which a checkpoint is written.

        Returns:
            The stage with averaged weights. If it is sharded, only the main process gets weights;
            in others they are on the device `meta`.

        Raises:
            CascadeError: if too many steps in a row are not finite, images cannot be read, or
                memory runs out.
            OutputError: if a file cannot be written; earlier checkpoints stay.
        """
        self.step_log.start()
        with (
            explained_errors(self.settings),
            ExitStack() as stack,
            stop_on_signal(self._request_stop),
        ):
            with together():
                if self.lock is not None:
                    self.lock.acquire()  # an earlier call released it
                    stack.callback(self.lock.release)
                stack.enter_context(self.watch.watching(self.state, self.images))
            if self.validation is not None and self.validation.lacks(self.state.images_seen):
                self._validate()  # the run was killed between its checkpoint and this
            for batch in self._batches():
                stopping = self._step(batch)
                if self._crossed(self.settings.snapshot_every_images):
                    self._save_snapshots()  # before a checkpoint: a resumed run starts after it
                if stopping:  # before samples: a scheduler may not wait
                    self._save()
                if self._crossed(self.settings.sample_every_images):
                    self._draw_samples()
                if self.validation is not None and self._crossed(self.validation.interval_images):
                    self._validate()
                if stopping:
                    break
                if self.stopped_early or self._crossed(self.settings.checkpoint_every_images):
                    self._save()  # last, so that a run killed before repeats all of the above
                if self.stopped_early:
                    break
            return self._finish()

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not fallen for as long as the settings allow."""
        return self.validation is not None and self.validation.exhausted

    def _batches(self) -> Iterator[Batch]:
        if self.stopped_early:  # in an earlier part of the run
            return
        positions = PositionBatches(
            self.state.images_seen,
            self.settings.images,
            self.settings.batch_size,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        try:
            batches = load_batches(self.images, positions, workers=self.settings.workers)
            for batch in in_step(batches):
                self.data_log.add(batch)
                self.state.broken = self.data_log.broken.names
                yield batch
        except (DataError, OtherProcessError):  # keep the training so far
            if self.state.steps:
                self._save()
            raise

    # ---- one step -------------------------------------------------------------------------------

    def _step(self, batch: Batch) -> bool:
        """Train on one batch; returns whether the run should end."""
        share = self.state.images_seen / self.settings.images
        self.state.progress = max(self.state.progress, share)
        self.objective.set_progress(self.state.progress)
        factor = set_learning_rate(self.state.optimisers, self.state.images_seen, self.settings)
        seed_dropout(self.settings.seed, self.state.images_seen, self.accelerator)
        before = [each.value().clone() for each in self.buffers]
        loss = accumulate_gradients(
            self.model, batch, self.accelerator, self.settings, sharded=self.sharded
        )
        norms = clip(self.state, self.accelerator, self.settings.gradient_clip)
        finite = all(math.isfinite(each) for each in (loss, *norms))
        share = loss / self.accelerator.num_processes
        votes = agree(self.accelerator, StepVote(share, not finite, self.stop_requested))
        settle_buffers(self.buffers, before, self.accelerator, keep=not votes.bad)
        self.state.images_seen += self.settings.batch_size
        if votes.bad:
            with together():
                skip_step(self.state, most_in_a_row=self.settings.max_bad_steps)
        else:
            take_step(self.state, batch_size=self.settings.batch_size)
        self.step_log.step(self.state, votes.loss, norms[0], factor)
        alone = self.accelerator.num_processes == 1
        return self.stop_requested if alone else votes.stop > 0

    def _crossed(self, every_images: int) -> bool:
        """Whether the last step passed a multiple of `every_images`, or the end."""
        if every_images <= 0:
            return False
        before = self.state.images_seen - self.settings.batch_size
        return (
            self.state.images_seen // every_images > before // every_images
            or self.state.images_seen >= self.settings.images
        )

    # ---- samples, checkpoints, end --------------------------------------------------------------

    def _draw_samples(self) -> None:
        self.data_log.totals()
        with self.averaged.on_device(self.state.ema.shadow_params) as stage, together():
            seen = self.state.images_seen
            self.watch.samples(stage, self.images, self.objective, images=seen)

    def _validate(self) -> None:
        if self.validation is not None:
            with self.averaged.on_device(self.state.ema.shadow_params) as stage:
                self.validation.measure(stage, images_seen=self.state.images_seen)

    def _save_snapshots(self) -> None:
        for average in self.state.power_averages:
            folder = snapshot_folder(self.out / "averages", self.state.images_seen, average.width)
            stage = self.averaged.filled(average.values)
            with together():
                if self.accelerator.is_main_process:
                    _save_stage(stage, folder, dtype=torch.float16)

    def _save(self) -> None:
        save_checkpoint(
            self.state,
            self.out / "checkpoints",
            keep=self.settings.keep_checkpoints,
            about=self.identity,
            main=self.accelerator.is_main_process,
        )

    def _finish(self) -> Stage:
        if self.state.steps == 0 and self.state.bad_steps > 0:
            raise CascadeError(
                f"all {self.state.bad_steps} steps were skipped, because loss or gradient was not "
                "finite; nothing was trained. Lower the learning rate or train in fp32."
            )
        self.data_log.totals()
        stage = self.averaged.filled(self.state.ema.shadow_params)
        before = stage.contract
        with together():
            if self.accelerator.is_main_process:
                self.objective.finish(stage, self.images)
                _save_stage(stage, self.out / "stage")
        share_contract(self.accelerator, stage, before)
        return self.averaged.trainable()

    def _request_stop(self) -> bool:
        """Stop after this step; returns whether a stop was requested before."""
        before, self.stop_requested = self.stop_requested, True
        if not before and self.accelerator.is_main_process:
            logger.info("stopping after this step, with a checkpoint.")
        return before


def _save_stage(stage: Stage, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a stage into the folder of the run, where no link is followed."""
    with atomic_folder(folder, owned=stage_entries(folder)) as temporary:
        stage.write(temporary, dtype=dtype)
