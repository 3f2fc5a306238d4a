"""Samples with fixed seeds, and contact sheets of them that show the progress of training."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.data.batches import collate
from cascade.data.training_images import TrainingImages
from cascade.devices import Precision
from cascade.imaging.rasters.showing import as_rgb, with_scale_bar
from cascade.imaging.writing import contact_sheet
from cascade.space import Space
from cascade.stage import Run, Stage


def shown_batch(images: TrainingImages, count: int) -> Batch:
    """The first images of a run, the same every time."""
    return collate([images[position] for position in range(count)])


def draw_samples(stage: Stage, batch: Batch, *, precision: Precision) -> Tensor:
    """Sample with the seeds of a batch and with inputs made from it, whatever its other images are.

    An autoencoder restores the images of the batch instead.

    Args:
        stage: a stage with averaged weights.
        batch: B training images and their conditions, on the stage's device.
        precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

    Returns:
        (B, C, H, W) in [-1, 1].
    """
    if isinstance(stage, AutoencoderStage):
        latents = stage.encode(batch.images, precision=precision)
        return stage.decode(latents, precision=precision)
    run = Run(precision=precision)
    return stage.run(batch.seeds, stage.contract.inputs_of(batch), run=run)


def grid_columns(stage: Stage) -> list[str]:
    """The columns of a grid, in order: image inputs, `sample`, `truth`; else only `sample`."""
    if isinstance(stage, AutoencoderStage):
        return ["sample", "truth"]
    slots = stage.contract.slots
    inputs = [each.input_name for each in stage.conditions if slots[each.name].channels > 0]
    return [*inputs, "sample", "truth"] if inputs else ["sample"]


def sample_grid(stage: Stage, batch: Batch, samples: Tensor) -> Image.Image:
    """Lay out samples in one picture.

    Args:
        stage: the stage that made the samples.
        batch: the B training images whose conditions the samples got.
        samples: (B, C, H, W) in [-1, 1].

    Returns:
        A picture with the columns of `grid_columns` side by side for every sample. Images of
        bands appear as their space says; images of another number of channels by the first one.
    """
    names = grid_columns(stage)
    if len(names) == 1:
        return with_scale_bar(contact_sheet(_rgb(samples, stage.space)), stage.space)
    inputs = stage.contract.inputs_of(batch)
    images = {"sample": samples, "truth": batch.images} | {n: inputs.get(n) for n in names[:-2]}
    size = (batch.images.shape[-2], batch.images.shape[-1])
    columns = [
        nn.functional.interpolate(_rgb(images[name], stage.space), size=size) for name in names
    ]
    count = len(columns)
    sheet = contact_sheet(
        torch.stack(columns, dim=1).flatten(0, 1), columns=6 // count * count or count
    )
    return with_scale_bar(sheet, stage.space)


def _rgb(images: Tensor, space: Space) -> Tensor:
    """Make three channels for display: (B, C, H, W) -> (B, 3, H, W)."""
    if images.shape[1] == space.channels:
        return as_rgb(images, space)
    return images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
