"""Bits per dimension: how many a stage would need to store images, by the variational bound.

Ho et al. 2020 (arXiv 2006.11239, eqs. 5 and 13), Nichol & Dhariwal 2021 (arXiv 2102.09672, eqs.
4-7): the prior, plus the divergences of the stage's steps from the true ones, plus the 8-bit values
at the first timestep. The bound holds for sampling with ddpm in all T steps without guidance and
thresholding, and for images with 8 bits.

Shapes: B batch, C channels, H and W pixels, T training timesteps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from cascade.conditioning.assembling import request_signals
from cascade.conditioning.batch import Batch
from cascade.conditioning.inputs import Request
from cascade.conditioning.signals import Signals
from cascade.devices import Precision, autocast
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.variance import variational_bound
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.resizing import quantise
from cascade.sampling.steps import Variance

LEVELS = 256  # of 8-bit values


@dataclass(frozen=True)
class Bound:
    """Bits per dimension of each image, in three parts.

    Attributes:
        prior: (B,) float64, for what is left of the image at the last timestep.
        steps: (B,) float64, for the steps between.
        values: (B,) float64, for the 8-bit values, given the image at the first timestep.
    """

    prior: Tensor
    steps: Tensor
    values: Tensor

    @property
    def total(self) -> Tensor:
        """(B,) float64, the sum of the parts."""
        return self.prior + self.steps + self.values


@torch.no_grad()
def bits_per_dimension(
    stage: DiffusionStage,
    batch: Batch,
    *,
    timesteps: int | None = None,
    variance: Variance = "large",
    precision: Precision = "fp32",
) -> Bound:
    """Bound the bits that a stage needs for images, given its conditions.

    Args:
        stage: the stage to measure. Its conditions are those of sampling, made from the batch, at
            its own augmentation level.
        batch: images (B, C, H, W) in [-1, 1], which are rounded to 8 bits. All noise comes from its
            seeds.
        timesteps: how many of the T - 1 to visit for each image, spread evenly and drawn from its
            seed, so the mean over images has no bias; default: all, which is exact apart from the
            noise.
        variance: variance of the steps, unless the stage has learned it: `small`, that of the
            posterior, or `large`, which is beta and usually tighter.
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

    Returns:
        The bound of each image, on the CPU.

    Raises:
        ContractError: if the images do not fit the stage, `timesteps` is out of range, `variance`
            is unknown, or the stage is a student, makes no pixels, or has no range of 256 levels.
    """
    check_likelihood(stage)
    if variance not in get_args(Variance):
        raise ContractError(f"variance must be one of {get_args(Variance)}, got {variance!r}.")
    last = stage.process.schedule.train_steps - 1
    count = last if timesteps is None else timesteps
    if not 1 <= count <= last:
        raise ContractError(f"timesteps must be from 1 to {last}, got {count}.")
    terms = _Terms(stage, batch.to(stage.device), variance, precision)
    steps = torch.zeros(len(batch), dtype=torch.float64)
    for number in range(count):
        low, high = 1 + last * number / count, 1 + last * (number + 1) / count
        place = terms.noise.uniform().view(-1).cpu().double()
        t = (low + (high - low) * place).long().clamp(max=last).to(stage.device)
        steps += terms.at(t) * (last / count)
    values = terms.at(torch.zeros(len(batch), dtype=torch.long, device=stage.device))
    bits = 1 / math.log(2)  # in a nat
    return Bound(_prior(stage, terms.images) * bits, steps * bits, values * bits)


def check_likelihood(stage: DiffusionStage) -> None:
    """Check that a stage has bits per dimension.

    Raises:
        ContractError: if it is a student, makes no pixels, or its images do not have 8 bits.
    """
    if not stage.space.is_bounded:
        raise ContractError(
            f"bits per dimension are for pixels, but this stage makes {stage.space.kind}."
        )
    if stage.contract.student is not None:
        raise ContractError(
            "bits per dimension are for stages that denoise at all noise levels, not for a "
            f"{stage.contract.student.text}."
        )
    if stage.space.levels != LEVELS:
        raise ContractError(
            f"bits per dimension are for images of {LEVELS} levels, but this stage's range has "
            f"{stage.space.levels}."
        )


class _Terms:
    """The terms of the bound for one batch."""

    def __init__(
        self, stage: DiffusionStage, batch: Batch, variance: Variance, precision: Precision
    ) -> None:
        self.stage = stage
        self.images = quantise(batch.images)  # (B, C, H, W)
        self.noise = SeededNoise(batch.seeds, "likelihood", device=stage.device)
        self.variance = variance
        self.precision: Precision = precision
        self.signals = sampling_signals(stage, batch, self.noise)

    def at(self, t: Tensor) -> Tensor:
        """The term of timesteps t (B,) in nats per dimension: (B,) float64 on the CPU."""
        process, x0 = self.stage.process, self.images
        x_t = process.schedule.add_noise(x0, self.noise.normal(*x0.shape[1:]), t)
        with autocast(self.stage.device, self.precision):
            output = self.stage.predict(x_t, t, self.signals)
        prediction, learned = process.split(output.float())
        x0_hat = process.x0(prediction, x_t, t)
        if learned is None:
            learned = torch.full_like(x0, -1.0 if self.variance == "small" else 1.0)
        return variational_bound(process.schedule, x0, x0_hat, x_t, t, learned).cpu().double()


def sampling_signals(stage: DiffusionStage, batch: Batch, noise: SeededNoise) -> Signals:
    """The signals of the stage's conditions, as in sampling, at its own augmentation level.

    Args:
        stage: the stage.
        batch: images (B, C, H, W) in [-1, 1] with their annotations.
        noise: one random stream per image.
    """
    request = Request(
        inputs=stage.contract.inputs_of(batch),
        previous=None,
        space=stage.space,
        size_px=(batch.images.shape[-2], batch.images.shape[-1]),
        augmentation_level=stage.sampling.augmentation_level,
        noise=noise,
    )
    return request_signals(stage.conditions, request)


def _prior(stage: DiffusionStage, x0: Tensor) -> Tensor:
    """Divergence of q(x_T | x0) from the standard normal, in nats per dimension: (B,)."""
    alpha_bar = float(stage.process.schedule.alpha_bar[-1])
    mean_square = alpha_bar * x0.cpu().double().square().mean(dim=(1, 2, 3))
    return 0.5 * (mean_square + (1 - alpha_bar) - 1 - math.log1p(-alpha_bar))
