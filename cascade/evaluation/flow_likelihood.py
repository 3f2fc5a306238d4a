"""Bits per dimension by the probability flow: the exact log-likelihood of images.

Song et al. 2021 (arXiv 2011.13456, section 4.3 and appendix D.2): the flow carries an image to
noise, whose density is known, and the divergence of the flow along the way says how much it
stretches volumes. The trace in it is Hutchinson's estimate with one probe of -1 and 1 per image
(Grathwohl et al. 2019, arXiv 1810.01367), which has no bias and is exact where pixels do not mix.

Over s = sigma / alpha, the flow is d(x / alpha) / ds = eps; with lambda = log(alpha / sigma), the
log density per dimension changes by d(log sigma) and by alpha tr(d x0 / d x) / D d(lambda).

Shapes: B batch, C channels, H and W pixels, D = C H W, T training timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.devices import Precision, autocast
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation.likelihood import LEVELS, check_likelihood, sampling_signals
from cascade.resizing import quantise
from cascade.sampling.samplers.sampler import batch_of

HALF_LEVELS = (LEVELS - 1) / 2  # 8-bit steps from 0 to 1 in images of [-1, 1]


@torch.no_grad()
def flow_bits_per_dimension(
    stage: DiffusionStage, batch: Batch, *, steps: int = 50, precision: Precision = "fp32"
) -> Tensor:
    """Measure the bits that a stage needs for images, given its conditions.

    The images are those that `ode` draws at timestep 0, without guidance and thresholding: this is
    another model than the one of `bits_per_dimension`, so neither figure bounds the other. 8-bit
    values become densities by adding uniform noise of one step to them. The mean over images then
    bounds the bits of the 8-bit values from above (Theis et al. 2016, arXiv 1511.01844).

    Args:
        stage: the stage to measure. Its conditions are those of sampling, made from the batch, at
            its own augmentation level.
        batch: images (B, C, H, W) in [-1, 1], which are rounded to 8 bits. All noise comes from its
            seeds.
        steps: number of timesteps to visit, from 2 to T, each of which but the first costs two
            calls of the network and of its gradient.
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

    Returns:
        (B,) float64 on the CPU.

    Raises:
        ContractError: if the images do not fit the stage, `steps` is out of range, or the stage is
            a student, makes no pixels, or has no range of 256 levels.
    """
    check_likelihood(stage)
    schedule = stage.process.schedule
    if not 2 <= steps <= schedule.train_steps:
        raise ContractError(f"steps must be from 2 to {schedule.train_steps}, got {steps}.")
    timesteps = _timesteps(schedule, steps)
    flow = _Flow(stage, batch.to(stage.device), precision)
    alpha = math.sqrt(schedule.alpha_bar_at(timesteps[0]))
    log_density = flow.log_density(alpha * flow.images, timesteps) + math.log(alpha)
    return math.log2(HALF_LEVELS) - log_density / math.log(2)


class _Flow:
    """The flow from images to noise for one batch."""

    def __init__(self, stage: DiffusionStage, batch: Batch, precision: Precision) -> None:
        self.stage = stage
        self.precision: Precision = precision
        noise = SeededNoise(batch.seeds, "likelihood", device=stage.device)
        shape = batch.images.shape[1:]
        uniform = (2 * noise.uniform(*shape) - 1) / (LEVELS - 1)
        self.images = quantise(batch.images) + uniform  # (B, C, H, W)
        self.probe = (noise.uniform(*shape) < 0.5).float() * 2 - 1  # (B, C, H, W)
        self.signals = sampling_signals(stage, batch, noise)

    def log_density(self, x: Tensor, timesteps: Sequence[int]) -> Tensor:
        """Log density per dimension of noisy images, in nats.

        Args:
            x: (B, C, H, W) images at the first timestep.
            timesteps: the timesteps to visit, rising; at the last one all is noise.

        Returns:
            (B,) float64 on the CPU.
        """
        table = self.stage.process.schedule.log_alpha_sigma
        total = torch.zeros(len(x), dtype=torch.float64)
        for t, after in pairwise(timesteps):
            kept, gain, weight = _coefficients(self.stage.process.schedule, t, after)
            eps, trace = self._at(x, t)
            moved = kept * x + gain * eps
            eps_after, trace_after = self._at(moved, after)
            x = moved + gain * weight * (eps_after - eps)
            total -= float(table[t] - table[after]) * (trace + trace_after) / 2
        first, last = (self._log_sigma(t) for t in (timesteps[0], timesteps[-1]))
        normal = -0.5 * (math.log(2 * math.pi) + x.cpu().double().square().mean(dim=(1, 2, 3)))
        return total + last - first + normal

    def _at(self, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The noise in x (B, C, H, W), and alpha tr(d x0 / d x) / D (B,) float64 on the CPU."""
        process, times = self.stage.process, batch_of(t, x)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            with autocast(self.stage.device, self.precision):
                output = self.stage.predict(x, times, self.signals)
            x0 = process.x0(process.split(output.float())[0], x, times)
            (pulled,) = torch.autograd.grad((x0 * self.probe).sum(), x)
        trace = (pulled * self.probe).cpu().double().mean(dim=(1, 2, 3))
        alpha = math.sqrt(process.schedule.alpha_bar_at(t))
        return process.eps(x0.detach(), x.detach(), times), alpha * trace

    def _log_sigma(self, t: int) -> float:
        return 0.5 * math.log1p(-self.stage.process.schedule.alpha_bar_at(t))


def _timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """The timesteps to visit, rising, without one whose SNR is 0, where log SNR has no value."""
    last = schedule.train_steps - (2 if schedule.alpha_bar[-1] == 0 else 1)
    return sorted({min(t, last) for t in schedule.refined_timesteps(steps)})


def _coefficients(schedule: NoiseSchedule, t: int, after: int) -> tuple[float, float, float]:
    """Factors of x_t and eps in Euler's step to more noise, and Heun's weight of the second eps.

    Heun's step takes eps as linear in log SNR.
    """
    here, there = schedule.alpha_bar_at(t), schedule.alpha_bar_at(after)
    kept = math.sqrt(there / here)
    gain = math.sqrt(1 - there) - kept * math.sqrt(1 - here)
    h = float(schedule.log_alpha_sigma[t] - schedule.log_alpha_sigma[after])
    return kept, gain, 1 / (1 - math.exp(-h)) - 1 / h
