"""Meters of a stage: what the loss of training, at random noise levels, does not show.

They are functions of a stage and of images, and draw nothing but what the batch's seeds give, so
that the same weights always measure the same.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.devices import Precision, autocast
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.stage import Stage
from cascade.training.objectives.denoising import Denoising

LOG_SNRS = (7, 5, 3, 1, -1, -3, -5, -7)
UNITS_8_BIT = 127.5  # of an image in [-1, 1]
CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class ColourDrift:
    """How samples differ in colour from the truth, by channel, in 8-bit units.

    Attributes:
        mean: mean of the samples minus that of the truth; above 0 the samples are too bright.
        spread: the same of standard deviations; below 0 the samples are too flat.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]


def colour_drift(samples: Tensor, truth: Tensor) -> ColourDrift:
    """Compare the colours of all pixels of the samples with those of all pixels of the truth.

    Args:
        samples: (B, C, H, W) in [-1, 1].
        truth: of the same number of channels. For a stage that is given an image, the pictures
            that the given images were made from; for a base stage, training images of the same
            labels, which are other pictures, so that some drift is left to chance: look at how it
            changes, not at its size.
    """
    ours, theirs = (_by_channel(images) for images in (samples, truth))
    mean = (ours.mean(dim=1) - theirs.mean(dim=1)) * UNITS_8_BIT
    spread = (_spread(ours) - _spread(theirs)) * UNITS_8_BIT
    return ColourDrift(tuple(mean.tolist()), tuple(spread.tolist()))


@torch.no_grad()
def loss_by_noise_level(
    stage: DiffusionStage, batch: Batch, *, precision: Precision = "fp32"
) -> dict[int, float]:
    """The denoising loss of a stage at fixed noise levels.

    Args:
        stage: to measure, on the batch's device.
        batch: images with seeds, which give noise and drops, the same at every level.
        precision: of the network.

    Returns:
        The mean loss by log-SNR, from little noise to much.
    """
    losses = {}
    for log_snr in LOG_SNRS:
        t = torch.full((len(batch),), nearest_timestep(stage.process.schedule, log_snr))
        with autocast(stage.device, precision):
            losses[log_snr] = float(Denoising().loss_at(stage, batch, t).double().mean())
    return losses


def nearest_timestep(schedule: NoiseSchedule, log_snr: float) -> int:
    """The timestep whose log-SNR, log(alpha^2 / sigma^2), comes nearest."""
    return int((2 * schedule.log_alpha_sigma - log_snr).abs().argmin())


def measure(
    stage: Stage, batch: Batch, samples: Tensor, *, precision: Precision = "fp32"
) -> dict[str, float]:
    """All meters that a stage has, by name.

    Args:
        stage: that made the samples.
        batch: the images that the samples are compared with, and what the stage was given.
        samples: (B, C, H, W) in [-1, 1].
        precision: of the network.

    Returns:
        What the conditions find, such as `low_res_consistency`; `colour_mean_red` and so on,
        `colour_spread_red` and so on; and for a diffusion stage `loss_at_log_snr_+7` to `-7`.
    """
    drift = colour_drift(samples, batch.images)
    values = {}
    for each in stage.conditions:
        values |= each.deviation(samples, each.input_of(batch, stage.space), stage.space)
    names = CHANNELS if len(drift.mean) == len(CHANNELS) else range(len(drift.mean))
    values |= {f"colour_mean_{name}": v for name, v in zip(names, drift.mean, strict=True)}
    values |= {f"colour_spread_{name}": v for name, v in zip(names, drift.spread, strict=True)}
    if not isinstance(stage, DiffusionStage):
        return values
    losses = loss_by_noise_level(stage, batch, precision=precision)
    return values | {f"loss_at_log_snr_{level:+d}": loss for level, loss in losses.items()}


def _by_channel(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, B H W) in float64 on the CPU: not every device has it."""
    return images.transpose(0, 1).flatten(1).cpu().double()


def _spread(pixels: Tensor) -> Tensor:
    return pixels.std(dim=1, correction=0)
