"""The training loop of one stage, on accelerate.

Running it again in the same folder goes on from the newest checkpoint.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from diffusers.training_utils import EMAModel
from torch import nn

from cascade.conditioning.low_resolution import quantise
from cascade.data.batch import Batch
from cascade.data.training_images import PositionBatches, TrainingImages, load_batches
from cascade.devices import autocast, best_device
from cascade.errors import CascadeError, DataError
from cascade.files import check_writable_folder
from cascade.imaging.writing import contact_sheet, save_png
from cascade.stage import Stage
from cascade.training.checkpoint import RunState, checkpoints, load_checkpoint, save_checkpoint
from cascade.training.optimiser import clip_gradients, make_optimisers, set_learning_rate
from cascade.training.settings import TrainingSettings

LOG_EVERY_STEPS = 10


class Trainer:
    """Trains a stage and leaves it, with averaged weights, in `out/stage`.

    Args:
        stage: the stage to train; its weights are changed.
        images: the training images.
        out: folder of the run: checkpoints, samples, log and the finished stage.
        settings: of the run.
        report: called with the values of each line of the log, and with `images` and `total`.

    Raises:
        OutputError: if the folder cannot be written.
        WeightsError: if it holds checkpoints of another stage.
    """

    def __init__(
        self,
        stage: Stage,
        images: TrainingImages,
        out: Path,
        settings: TrainingSettings,
        *,
        report: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        check_writable_folder(out)
        stage.check_settings(stage.sampling)
        self.out = out
        self.settings = settings
        self.images = images
        self.report = report
        self.stop_requested = False
        self.accelerator = _make_accelerator()
        torch.manual_seed(settings.seed)
        stage = stage.to(self.accelerator.device)
        self.averaged = copy.deepcopy(stage).eval().requires_grad_(False)
        self._prepare_network(stage)
        optimisers = make_optimisers(stage, settings)
        ema = EMAModel(stage.parameters(), decay=settings.ema_decay, foreach=True)
        self.state = RunState(stage, ema, optimisers)
        self._resume()
        self.model: nn.Module = self.accelerator.prepare_model(stage)

    def _prepare_network(self, stage: Stage) -> None:
        stage.train()
        if self.settings.gradient_checkpointing:
            stage.network.backbone.enable_gradient_checkpointing()
        if self.settings.compile:
            stage.network.backbone.compile()

    def run(self) -> Stage:
        """Train to the end, or until SIGTERM or Ctrl-C, after which a checkpoint is written.

        Returns:
            The stage with averaged weights.
        """
        state, settings = self.state, self.settings
        last_log = time.monotonic()
        losses: list[float] = []
        with self._stop_on_signal(), self._saved_on_bad_data():
            for batch in self._batches():
                values = self._step(batch)
                losses.append(values["loss"])
                if state.steps % LOG_EVERY_STEPS == 0 or state.images_seen >= settings.images:
                    now = time.monotonic()
                    values["loss"] = sum(losses) / len(losses)
                    values["images_per_s"] = len(losses) * settings.batch_size / (now - last_log)
                    self._log(values)
                    losses, last_log = [], now
                stopping = self._stop_agreed()
                if self._crossed(settings.checkpoint_every_images) or stopping:
                    self._save()
                if stopping:
                    break
                if self._crossed(settings.sample_every_images):
                    self._sample_grid()
        return self._finish()

    def _batches(self) -> Iterator[Batch]:
        positions = PositionBatches(
            self.state.images_seen,
            self.settings.images,
            self.settings.batch_size,
            rank=self.accelerator.process_index,
            processes=self.accelerator.num_processes,
        )
        yield from load_batches(self.images, positions, workers=self.settings.workers)

    def _step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step: every part of the batch counts by its share, whatever its size."""
        state = self.state
        factor = set_learning_rate(state.optimisers, state.images_seen, self.settings)
        total = 0.0
        for part in _parts(batch, self.settings.accumulation_steps):
            with autocast(self.accelerator.device, self.settings.precision):
                loss = self.model(part.to(self.accelerator.device)).sum() / len(batch)
            self.accelerator.backward(loss)
            total += float(loss.detach())
        norm = clip_gradients(list(state.stage.parameters()), self.settings.gradient_clip)
        if not math.isfinite(total) or not math.isfinite(norm):
            raise CascadeError(
                f"loss or gradient is not finite after {state.images_seen} images; lower the "
                "learning rate or use train.precision=fp32, and run again to go on from the last "
                "checkpoint."
            )
        for optimiser in state.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        state.ema.step(state.stage.parameters())
        state.steps += 1
        state.images_seen += self.settings.batch_size
        return {"loss": total, "gradient_norm": norm, "learning_rate_factor": factor}

    def _stop_agreed(self) -> bool:
        """Whether any process was asked to stop; all of them end after the same step."""
        if self.accelerator.num_processes == 1:
            return self.stop_requested
        flag = torch.tensor([float(self.stop_requested)], device=self.accelerator.device)
        torch.distributed.all_reduce(flag)
        return bool(flag.item() > 0)

    def _crossed(self, every_images: int) -> bool:
        """Whether the last step passed a multiple of `every_images`, or the end."""
        if every_images <= 0:
            return False
        before = self.state.images_seen - self.settings.batch_size
        return (
            self.state.images_seen // every_images > before // every_images
            or self.state.images_seen >= self.settings.images
        )

    def _log(self, values: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        line = {"images": self.state.images_seen, **values}
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.report is not None:
            self.report({**line, "total": self.settings.images})

    # ---- samples, checkpoints, end --------------------------------------------------------------

    def _averaged_stage(self) -> Stage:
        self.state.ema.copy_to(self.averaged.parameters())
        return self.averaged

    def _sample_grid(self) -> None:
        """Sample with fixed seeds and the labels of the first images; upsamplers see real ones."""
        if not self.accelerator.is_main_process:
            return
        shown = [self.images[position] for position in range(self.settings.sample_count)]
        stage, device = self._averaged_stage(), self.accelerator.device
        labels = torch.tensor([sample.labels for sample in shown]) if shown[0].labels else None
        low_res = None
        if stage.is_upsampler:
            low_res = torch.stack([s.low_res for s in shown if s.low_res is not None]).to(device)
        images = stage.sample(
            list(range(len(shown))),
            labels=labels,
            low_res=low_res,
            precision=self.settings.precision,
        )
        if low_res is not None:
            truth = torch.stack([sample.image for sample in shown]).to(device)
            enlarged = nn.functional.interpolate(quantise(low_res), size=truth.shape[-1])
            images = torch.stack([enlarged, images, truth], dim=1).flatten(0, 1)
        sheet = contact_sheet(images, columns=6 if low_res is not None else None)
        save_png(sheet, self.out / "samples" / f"{self.state.images_seen:012d}.png")

    def _about(self) -> dict[str, Any]:
        """What a resumed run must agree with: it would not be the same run otherwise."""
        stage = self.state.stage.config()
        stage.pop("sampling")
        return {
            "train": {
                "batch_size": self.settings.batch_size,
                "seed": self.settings.seed,
                "optimiser": self.settings.optimiser,
            },
            "stage": stage,
            "data": {
                "images": len(self.images.source),
                "crop_px": self.images.crop_px,
                "flip": self.images.flip,
            },
        }

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.state,
                self.out / "checkpoints",
                keep=self.settings.keep_checkpoints,
                about=self._about(),
            )
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = checkpoints(self.out / "checkpoints")
        if not found:
            return
        before = _flat(load_checkpoint(self.state, found[-1]))
        now = _flat(json.loads(json.dumps(self._about())))
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise CascadeError(
                    f"{self.out} was trained with {key}={before.get(key)}, now it is "
                    f"{now.get(key)}; set it back or use a new --out."
                )

    def _finish(self) -> Stage:
        stage = self._averaged_stage()
        if self.accelerator.is_main_process:
            stage.save_pretrained(self.out / "stage")
        self.accelerator.wait_for_everyone()
        return stage

    @contextmanager
    def _saved_on_bad_data(self) -> Iterator[None]:
        """An image that cannot be read ends the run, but what was trained until then is kept."""
        try:
            yield
        except DataError:
            if self.accelerator.num_processes == 1 and self.state.steps:
                self._save()
            raise

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        """SIGTERM and the first Ctrl-C end the run after the step that is under way."""

        def request_stop(number, frame) -> None:
            if self.stop_requested and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop_requested = True

        try:
            previous = {
                number: signal.signal(number, request_stop)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        except ValueError:  # not in the main thread, where signals cannot be handled
            yield
            return
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _make_accelerator() -> Accelerator:
    """Precision and accumulation are the recipe's, whatever accelerate's own settings say."""
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_steps=1,
        cpu=best_device().type == "cpu",  # or processes on the CPU would not find each other
    )
    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not kind.value.startswith("MULTI_"):
        raise CascadeError(f"distributed training by {kind.value} is not supported; use DDP.")
    return accelerator


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    size = math.ceil(len(batch) / count)
    for first in range(0, len(batch), size):
        chosen = slice(first, first + size)
        yield Batch(
            images=batch.images[chosen],
            seeds=batch.seeds[chosen],
            labels=None if batch.labels is None else batch.labels[chosen],
            low_res=None if batch.low_res is None else batch.low_res[chosen],
        )
