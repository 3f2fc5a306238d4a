"""Samples with fixed seeds, and contact sheets of them that show how far a stage is."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from cascade.conditioning.low_resolution import quantise
from cascade.data.batch import Batch
from cascade.data.training_images import TrainingImages, collate
from cascade.devices import Precision
from cascade.imaging.writing import contact_sheet
from cascade.stage import Stage


def shown_batch(images: TrainingImages, count: int) -> Batch:
    """The first images of a run, the same every time."""
    return collate([images[position] for position in range(count)])


def draw_samples(stage: Stage, batch: Batch, *, precision: Precision) -> Tensor:
    """Sample with the seeds 0, 1, … and with the labels and low-resolution images of a batch.

    Args:
        stage: with averaged weights.
        batch: on the stage's device.
        precision: of the network.

    Returns:
        (B, C, H, W) in [-1, 1].
    """
    return stage.sample(
        range(len(batch)), labels=batch.labels, low_res=batch.low_res, precision=precision
    )


def sample_grid(batch: Batch, samples: Tensor) -> Image.Image:
    """Lay out samples.

    Args:
        batch: what they were made for.
        samples: (B, 3, H, W) in [-1, 1].

    Returns:
        One picture; an upsampler's shows the small image, the sample and the truth side by side.
    """
    if batch.low_res is None:
        return contact_sheet(samples)
    enlarged = nn.functional.interpolate(quantise(batch.low_res), size=batch.images.shape[-1])
    beside = torch.stack([enlarged, samples, batch.images], dim=1)
    return contact_sheet(beside.flatten(0, 1), columns=6)
