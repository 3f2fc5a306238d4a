"""The sections of a recipe about training: `train`, `student` and `autoencoding`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cascade.recipe.section import Section
from cascade.recipe.values import Number, Side, Whole

Beta = Annotated[Number, Field(ge=0, lt=1)]


class LoraSection(Section):
    """A low-rank adapter, which is trained instead of the weights.

    Attributes:
        rank: rank of the change of a layer.
        alpha: the change is multiplied by alpha / rank; None for alpha = rank.
        targets: ends of the names of the layers to change, such as `[to_q, to_v]`; None for all
            linear layers and convolutions.
    """

    rank: Whole = Field(default=8, gt=0)
    alpha: Number | None = Field(default=None, gt=0)
    targets: list[str] | None = None


class TrainSection(Section):
    """How the stage is trained.

    Attributes:
        objective: names the loss: `denoising`, `consistency` for a student, or `autoencoding` for
            an autoencoder.
        images: images to train on in all, counting repeats.
        batch_size: images per optimiser step, over all processes.
        accumulation_steps: parts that a batch is split into; more of them need less memory.
        optimiser: `adamw`, or `muon` for matrices and convolutions, with AdamW for the rest.
        learning_rate: learning rate of AdamW.
        muon_learning_rate: learning rate of Muon.
        weight_decay: weight decay of both.
        betas: betas of AdamW.
        warmup_images: images over which the learning rate rises from 0.
        schedule: learning rate after the warm-up.
        decay_fraction: last part of a `warmup_stable_decay` run, in which the rate falls to 0.
        gradient_clip: largest norm of the gradient.
        ema_decay: decay of the averaged weights, which are the ones that are saved.
        snapshot_every_images: interval of the snapshots for `cascade ema`; 0 for none.
        max_bad_steps: how many steps in a row may have a loss or gradient that is not finite. They
            are skipped; one more ends the run.
        init_from: the weights to start from: a run, a stage, or one of a pipeline, such as
            `photo-x4` or `emoji-1024/base`.
        lora: train an adapter of `init_from` instead of the weights.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the hardware is fast at it.
        compile: whether to compile the network, which pays off on long runs.
        gradient_checkpointing: whether to save memory at the cost of time.
        seed: seed of all random numbers.
        checkpoint_every_images: interval of checkpoints.
        keep_checkpoints: how many to keep.
        sample_every_images: interval of sample sheets and meters; 0 for none.
        sample_count: images on a sheet.
        validate_every_images: interval of measurements on `data.validation`, if there are any; 0
            for none. None is a tenth of `images`; without patience at least 16 times as many as are
            measured, so that training takes most of the time; and at most 50,000.
        validate_count: most validation images that are measured, and training images beside them;
            the same ones every time.
        patience: measurements without a lower validation loss after which the run ends; 0 to go on.
        trackers: what records the curves.
        workers: data worker processes.
    """

    objective: str = "denoising"
    images: Whole = Field(default=1_000_000, gt=0)
    batch_size: Whole = Field(default=64, gt=0)
    accumulation_steps: Whole = Field(default=1, gt=0)
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: Number = Field(default=3e-4, gt=0)
    muon_learning_rate: Number = Field(default=0.02, gt=0)
    weight_decay: Number = Field(default=0.0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    warmup_images: Whole = Field(default=10_000, ge=0)
    schedule: Literal["warmup_stable_decay", "constant", "linear", "cosine"] = "warmup_stable_decay"
    decay_fraction: Number = Field(default=0.3, ge=0, le=1)
    gradient_clip: Number = Field(default=1.0, gt=0)
    ema_decay: Number = Field(default=0.9995, ge=0, lt=1)
    snapshot_every_images: Whole = Field(default=0, ge=0)
    max_bad_steps: Whole = Field(default=10, ge=0)
    init_from: str | None = None
    lora: LoraSection | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    seed: Whole = Field(default=0, ge=0, lt=2**63)
    checkpoint_every_images: Whole = Field(default=50_000, gt=0)
    keep_checkpoints: Whole = Field(default=2, gt=0)
    sample_every_images: Whole = Field(default=50_000, ge=0)
    sample_count: Whole = Field(default=16, gt=0)
    validate_every_images: Whole | None = Field(default=None, ge=0)
    validate_count: Whole = Field(default=256, gt=0)
    patience: Whole = Field(default=0, ge=0)
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    workers: Whole = Field(default=0, ge=0)


class StudentSection(Section):
    """What a student learns from its teacher, or without one.

    Attributes:
        steps: number of sampling steps.
        teacher: the stage to learn from: a run, a stage, or `PIPELINE/STAGE`. None is
            consistency training on the images, without guidance.
        guidance: scale of the distilled guidance, at least 0; 1 for none. Others need a teacher.
        guidance_interval: noise levels sigma / alpha at which that guidance applies; None for all.
        grid: steps of the teacher over all noise levels, at the start and after the growth; at most
            one for each timestep.
        growth: share of the run over which the grid grows.
    """

    steps: Whole = Field(gt=0)
    teacher: str | None = None
    guidance: Number = 1.0
    guidance_interval: tuple[Number, Number] | None = None
    grid: tuple[Side, Side] = (64, 1280)
    growth: Number = Field(default=0.5, gt=0, le=1)

    @field_validator("grid")
    @classmethod
    def _grid_grows(cls, grid: tuple[int, int]) -> tuple[int, int]:
        if grid[0] > grid[1]:
            raise ValueError(f"must be two numbers, the smaller one first, got {list(grid)}")
        return grid


class AutoencodingSection(Section):
    """What an autoencoder is trained for.

    Attributes:
        reconstruction: reconstruction error: `l1`, or `l2` for half the square.
        beta: weight of the divergence of the latents from N(0, 1). With `l2` it is the variance of
            a decoded pixel in a variational autoencoder. `autoencoder_tiny` needs 0.
        perceptual: features for the perceptual loss: `efflite0` (EfficientNet-Lite0,
            extra `evaluate`), `lpips` (extra `extractors`, if the weights of VGG-16 are
            available), or `none`. The first two need 3 channels.
        perceptual_weight: weight of that distance.
        adversarial_weight: weight of a patch discriminator, which learns beside the autoencoder to
            tell reconstructed images from true ones; 0 for none.
        adversarial_start: share of the run after which the discriminator begins, below 1.
    """

    reconstruction: Literal["l1", "l2"] = "l1"
    beta: Number = Field(default=1e-6, ge=0)
    perceptual: Literal["none", "efflite0", "lpips"] = "none"
    perceptual_weight: Number = Field(default=1.0, ge=0)
    adversarial_weight: Number = Field(default=0.0, ge=0)
    adversarial_start: Number = Field(default=0.5, ge=0, lt=1)
