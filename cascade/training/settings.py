"""How one stage is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cascade.devices import Precision
from cascade.training.trackers import TrackerName

OptimiserKind = Literal["adamw", "muon"]
LearningRateSchedule = Literal["warmup_stable_decay", "constant", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything about a run except stage and data. Progress is counted in images.

    Attributes:
        objective: name of the loss, such as `denoising`.
        images: how many images to show the network in all.
        batch_size: images per optimiser step, over all processes and accumulation.
        accumulation_steps: forward passes per optimiser step, which share the batch.
        optimiser: `adamw`, or `muon` for matrices and convolutions of the network's blocks and
            AdamW for all else.
        learning_rate: of AdamW.
        muon_learning_rate: of Muon.
        weight_decay: of both.
        betas: of AdamW.
        warmup_images: over which the learning rate rises from 0.
        schedule: of the learning rate after that: `warmup_stable_decay`, or `constant`, `linear` or
            `cosine` as in diffusers.
        decay_fraction: of `warmup_stable_decay`: the last part of the run, over which the rate
            falls to 0 as a cosine.
        gradient_clip: largest norm of the gradient.
        ema_decay: of the averaged weights; warm-up is (1 + n) / (10 + n) in steps.
        snapshot_every_images: between snapshots of two power-function averages, from which
            `cascade ema` makes an average of any width afterwards; 0 for none.
        max_bad_steps: how many steps in a row may have a loss or gradient that is not finite; they
            are skipped, and one more ends the run.
        precision: `auto` is bf16 where the hardware has it.
        compile: whether to compile the network, which pays on long runs.
        gradient_checkpointing: trade time for memory.
        seed: of everything that is drawn.
        checkpoint_every_images: between checkpoints.
        keep_checkpoints: how many to keep.
        sample_every_images: between grids of samples, with which the meters are read too; 0 for
            none.
        sample_count: images in a grid.
        trackers: of experiments: `tensorboard`, `wandb`, `trackio`; may be none.
        workers: data worker processes.
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
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    workers: int = 0
