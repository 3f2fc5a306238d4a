"""How one stage is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from pydantic import ValidationError

from cascade.arguments import shown
from cascade.devices import Precision
from cascade.errors import ContractError
from cascade.recipe.training_sections import TrainSection
from cascade.training.trackers import TrackerName

OptimiserKind = Literal["adamw", "muon"]
LearningRateSchedule = Literal["warmup_stable_decay", "constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything about a run except stage and data. Progress is counted in images.

    The ranges of all values are those of a recipe's section `train`. Values of NumPy and
    0-dimensional tensors become Python's own.

    Attributes:
        objective: name of the loss, such as `denoising`.
        images: total number of images that the network sees.
        batch_size: images per optimiser step, over all processes and accumulation.
        accumulation_steps: forward passes per optimiser step, which share the batch.
        optimiser: `adamw`, or `muon` for matrices and convolutions of the network's blocks and
            AdamW for all else.
        learning_rate: peak learning rate of AdamW.
        muon_learning_rate: peak learning rate of Muon.
        weight_decay: weight decay of AdamW and Muon.
        betas: decay rates of AdamW's first and second moment, each in [0, 1).
        warmup_images: number of images over which the learning rate rises from 0.
        schedule: course of the learning rate after that: `warmup_stable_decay`, or `constant`,
            `linear` or `cosine` as in diffusers.
        decay_fraction: share of the run, at its end, over which `warmup_stable_decay` lowers the
            rate to 0 as a cosine, in [0, 1].
        gradient_clip: largest norm of the gradient, above 0.
        ema_decay: decay of the averaged weights per step, in [0, 1); after n steps it is at most
            (1 + n) / (10 + n), as a warm-up.
        snapshot_every_images: number of images between snapshots of two power-function averages,
            from which an average of any width can be made afterwards; 0 for no snapshots.
        max_bad_steps: how many steps in a row may have a loss or gradient that is not finite; they
            are skipped, and one more ends the run.
        precision: `fp32`, `bf16`, or `auto`, which is bf16 where the hardware is fast at it.
        compile: whether to compile the network, which pays on long runs.
        gradient_checkpointing: whether to recompute activations, which saves memory and costs time.
        seed: whole number that decides the order of the data and all noise; where a recipe makes
            the stage, also its initial weights.
        checkpoint_every_images: number of images between checkpoints.
        keep_checkpoints: number of checkpoints to keep, at least 1.
        sample_every_images: number of images between grids of samples, with which the meters are
            read too; 0 for no grids.
        sample_count: number of samples in a grid.
        validate_every_images: number of images between measurements of the validation loss, if
            there are validation images; 0 for none, None for a tenth of `images`, without
            patience at least 16 times as many as are measured, and at most 50,000.
        validate_count: number of validation images that are measured, and of training images beside
            them, at least 1; the same ones every time.
        patience: number of measurements without a lower validation loss after which the run ends; 0
            to go on to the end.
        trackers: experiment trackers among `tensorboard`, `wandb` and `trackio`; may be empty.
        workers: number of processes that load data; 0 loads it in the training process.

    Raises:
        ContractError: naming the value that is of the wrong kind or out of range.
    """

    objective: str = "denoising"
    images: int = 1_000_000
    batch_size: int = 64
    accumulation_steps: int = 1
    optimiser: OptimiserKind = "adamw"
    learning_rate: float = 3e-4
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_images: int = 10_000
    schedule: LearningRateSchedule = "warmup_stable_decay"
    decay_fraction: float = 0.3
    gradient_clip: float = 1.0
    ema_decay: float = 0.9995
    snapshot_every_images: int = 0
    max_bad_steps: int = 10
    precision: Precision = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint_every_images: int = 50_000
    keep_checkpoints: int = 2
    sample_every_images: int = 50_000
    sample_count: int = 16
    validate_every_images: int | None = None
    validate_count: int = 256
    patience: int = 0
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    workers: int = 0

    def __post_init__(self) -> None:
        values = {each.name: _plain(getattr(self, each.name)) for each in fields(self)}
        try:
            section = TrainSection.model_validate(values, strict=True)
        except ValidationError as error:
            fault = error.errors()[0]
            name = str(fault["loc"][0])
            raise ContractError(
                f"{name} must {_expected(fault)}, got {shown(values[name])}."
            ) from error
        for name in values:
            object.__setattr__(self, name, getattr(section, name))


def _expected(fault: Mapping[str, Any]) -> str:
    """What a fault expects, such as `be greater than 0`."""
    if fault["type"] in ("missing", "too_long"):  # betas alone have a fixed length
        return "be two numbers"
    return re.sub("^input should ", "", fault["msg"], flags=re.I).replace("tuple", "list")


def _plain(value: Any) -> Any:
    """A value of NumPy or a 0-dimensional tensor as Python's own, and a list as a tuple."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if getattr(value, "ndim", None) == 0 else value
