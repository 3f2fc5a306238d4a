"""Samples with fixed seeds, and contact sheets of them that show how far a stage is."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from cascade.data.batch import Batch
from cascade.data.training_images import TrainingImages, collate
from cascade.devices import Precision
from cascade.imaging.writing import contact_sheet
from cascade.stage import Stage


def shown_batch(images: TrainingImages, count: int) -> Batch:
    """The first images of a run, the same every time."""
    return collate([images[position] for position in range(count)])


def draw_samples(stage: Stage, batch: Batch, *, precision: Precision) -> Tensor:
    """Sample with the seeds 0, 1, … and with the labels and taken images of a batch.

    Args:
        stage: with averaged weights.
        batch: on the stage's device.
        precision: of the network.

    Returns:
        (B, C, H, W) in [-1, 1].
    """
    taken = stage.image_of(batch)
    return stage.sample(range(len(batch)), labels=batch.labels, image=taken, precision=precision)


def sample_grid(stage: Stage, batch: Batch, samples: Tensor) -> Image.Image:
    """Lay out samples.

    Args:
        stage: that made them.
        batch: what they were made for.
        samples: (B, 3, H, W) in [-1, 1].

    Returns:
        One picture; of a stage that takes an image, it shows what it takes, the sample and the
        truth side by side.
    """
    taken = stage.image_of(batch)
    if taken is None:
        return contact_sheet(samples)
    truth = batch.images
    shown = nn.functional.interpolate(taken, size=truth.shape[-1]).expand_as(truth)
    return contact_sheet(torch.stack([shown, samples, truth], dim=1).flatten(0, 1), columns=6)
