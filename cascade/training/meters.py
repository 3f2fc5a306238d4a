"""Meters of a stage: facts that the training loss, at random noise levels, does not show.

They are functions of a stage and of images. All randomness comes from the batch's seeds, so the
same weights always give the same values.

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
from cascade.space import UNITS_8_BIT
from cascade.stage import Stage
from cascade.training.objectives.denoising import Denoising

LOG_SNRS = (7, 5, 3, 1, -1, -3, -5, -7)
CHANNELS = ("red", "green", "blue")


@dataclass(frozen=True)
class ColourDrift:
    """How samples differ in colour from the truth, by channel, in 8-bit units.

    Attributes:
        mean: mean of the samples minus that of the truth; above 0 the samples are too bright.
        spread: standard deviation of the samples minus that of the truth; below 0 the samples have
            too little contrast.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]


def colour_drift(samples: Tensor, truth: Tensor, known: Tensor | None = None) -> ColourDrift:
    """Compare the colours of all pixels of the samples with those of all pixels of the truth.

    Args:
        samples: (B, C, H, W) in [-1, 1].
        truth: (B', C, H', W') in [-1, 1]. For a stage that takes an image, the pictures that its
            inputs were made from. For a base stage, training images with the same labels; they are
            other pictures, so part of the drift is chance: look at how it changes, not at its size.
        known: (B', C, H', W') bool, False at values of the truth to leave out, and of the samples
            too if they have its shape; None for none. A channel without any other value gets NaN.
    """
    ours = _moments(samples, known if samples.shape == truth.shape else None)
    theirs = _moments(truth, known)
    mean, spread = ((a - b) * UNITS_8_BIT for a, b in zip(ours, theirs, strict=True))
    return ColourDrift(tuple(mean.tolist()), tuple(spread.tolist()))


@torch.no_grad()
def loss_by_noise_level(
    stage: DiffusionStage, batch: Batch, *, precision: Precision = "fp32"
) -> dict[int, Tensor]:
    """The denoising loss of a stage at fixed noise levels.

    Args:
        stage: the stage to measure, on the batch's device.
        batch: images with seeds, which determine noise and dropped conditions at every level.
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

    Returns:
        The losses (B,) float64 of the images by log-SNR, from little noise to a lot.
    """
    losses = {}
    for log_snr in LOG_SNRS:
        t = torch.full((len(batch),), nearest_timestep(stage.process.schedule, log_snr))
        with autocast(stage.device, precision):
            losses[log_snr] = Denoising().loss_at(stage, batch, t).cpu().double()
    return losses


def level_name(log_snr: int) -> str:
    """The name of the loss at a noise level in logs."""
    return f"loss_at_log_snr_{log_snr:+d}"


def nearest_timestep(schedule: NoiseSchedule, log_snr: float) -> int:
    """The timestep whose log-SNR, log(alpha^2 / sigma^2), is nearest to `log_snr`."""
    return int((2 * schedule.log_alpha_sigma - log_snr).abs().argmin())


def measure(
    stage: Stage, batch: Batch, samples: Tensor, *, precision: Precision = "fp32"
) -> dict[str, float]:
    """Read all meters of a stage.

    Args:
        stage: the stage that made the samples.
        batch: the images that the samples are compared with, and the data of the conditions.
        samples: (B, C, H, W) in [-1, 1].
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

    Returns:
        Values by name, which leave out missing ones: the conditions' deviations, such as
        `low_res_consistency`; for pixels `colour_mean_red` and so on, and `colour_spread_red` and
        so on; and for a diffusion stage that is no student `loss_at_log_snr_+7` to
        `loss_at_log_snr_-7`.
    """
    values = {}
    for each in stage.conditions:
        value = each.input_of(batch, stage.space)
        values |= each.deviation(samples, value, stage.space, batch.known)
    if stage.space.kind == "pixels":
        values |= _drift_values(samples, batch)
    if not isinstance(stage, DiffusionStage) or stage.contract.student is not None:
        return values
    losses = loss_by_noise_level(stage, batch, precision=precision)
    return values | {level_name(level): float(each.mean()) for level, each in losses.items()}


def _drift_values(samples: Tensor, batch: Batch) -> dict[str, float]:
    """The drift of each channel by name; channels of which nothing is known have none."""
    drift = colour_drift(samples, batch.images, batch.known)
    count = len(drift.mean)
    names = CHANNELS if count == len(CHANNELS) else range(count)
    known = batch.known
    seen = [c for c in range(count) if known is None or known[:, c].any()]
    means = {f"colour_mean_{names[c]}": drift.mean[c] for c in seen}
    return means | {f"colour_spread_{names[c]}": drift.spread[c] for c in seen}


def _moments(images: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of the known values of each channel."""
    pixels = _by_channel(images)
    if known is None:
        return pixels.mean(dim=1), pixels.std(dim=1, correction=0)
    weight = _by_channel(known)
    weight = weight / weight.sum(dim=1, keepdim=True)
    mean = (weight * pixels).sum(dim=1)
    variance = (weight * (pixels - mean[:, None]).square()).sum(dim=1)
    return mean, variance.sqrt()


def _by_channel(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, B H W) in float64 on the CPU, since not every device has float64."""
    return images.transpose(0, 1).flatten(1).cpu().double()
