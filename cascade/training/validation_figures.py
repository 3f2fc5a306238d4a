"""What is measured on held-out images: their loss, by noise level too, and a task's figures.

All randomness comes from the batch's seeds, and each image has values of its own, so that neither
batches nor processes change a figure.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.devices import Precision, autocast
from cascade.diffusion_stage import DiffusionStage
from cascade.stage import Stage
from cascade.tasks.image_metrics import BAND_LEVELS, MOST_PSNR_DB, psnr, ssim
from cascade.training.grids import draw_samples, grid_columns
from cascade.training.meters import level_name, loss_by_noise_level
from cascade.training.objectives.objective import Objective

VALIDATION = "validation"  # kind of log line, and group in trackers
TRAINING_LOSS = "training_images_loss"
SSIM_WINDOW_PX = 11


@torch.no_grad()
def losses(
    stage: Stage, objective: Objective, batch: Batch, *, precision: Precision = "fp32"
) -> Tensor:
    """The loss (B,) float64 of each image, as in the last step of a run.

    Args:
        stage: a stage with averaged weights, on the batch's device.
        objective: the loss. Its progress is set, as training does before every step.
        batch: images with fixed seeds, which decide noise and times.
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.
    """
    objective.set_progress(1.0)
    with autocast(stage.device, precision):
        return objective.loss(stage, batch).cpu().double()


def losses_by_level(
    stage: Stage, batch: Batch, *, precision: Precision = "fp32"
) -> dict[str, Tensor]:
    """The denoising losses (B,) at fixed noise levels by name; none for stages without levels."""
    if not isinstance(stage, DiffusionStage) or stage.contract.student is not None:
        return {}
    levels = loss_by_noise_level(stage, batch, precision=precision)
    return {level_name(level): each for level, each in levels.items()}


def has_originals(stage: Stage) -> bool:
    """Whether the results of a stage can be compared with the images that its inputs come from."""
    return stage.space.kind == "pixels" and "truth" in grid_columns(stage)


def task_figures(stage: Stage, batch: Batch, *, precision: Precision = "fp32") -> dict[str, Tensor]:
    """How far the results of a stage are from the originals and from their inputs.

    Args:
        stage: a stage that takes images, or an autoencoder.
        batch: the originals, from which the inputs are made.
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

    Returns:
        Values of each image, float64: `psnr` in dB, `ssim` if torchmetrics is installed and the
        images are large enough for it, and the deviations of conditions, such as
        `low_res_consistency`. They leave out missing values; images with any have no `ssim`.
    """
    samples = draw_samples(stage, batch, precision=precision).to(batch.images)
    levels = BAND_LEVELS if stage.space.has_bands else None
    known = torch.ones_like(samples, dtype=torch.bool) if batch.known is None else batch.known
    some, whole = (of(known.flatten(1), dim=1) for of in (torch.any, torch.all))
    masks = None if batch.known is None else known[some]
    psnrs = psnr(samples[some], batch.images[some], levels, masks)
    figures = {"psnr": psnrs.clamp(max=MOST_PSNR_DB)}
    is_large = min(samples.shape[-2:]) >= SSIM_WINDOW_PX
    if importlib.util.find_spec("torchmetrics") and is_large and whole.any():
        figures["ssim"] = ssim(samples[whole], batch.images[whole], levels)
    return {name: each.cpu().double() for name, each in figures.items()} | _deviations(
        stage, batch, samples
    )


def _deviations(stage: Stage, batch: Batch, samples: Tensor) -> dict[str, Tensor]:
    """The deviations that the conditions of a stage measure, by name: one of each image.

    An image of which nothing is known has none.
    """
    values: dict[str, list[float]] = {}
    for place, one in enumerate(batch.parts(len(batch))):
        sample = samples[place : place + 1]
        for each in stage.conditions:
            value = each.input_of(one, stage.space)
            deviation = each.deviation(sample, value, stage.space, one.known)
            for name, value in deviation.items():
                values.setdefault(name, []).append(value)
    return {name: torch.tensor(each, dtype=torch.float64) for name, each in values.items()}
