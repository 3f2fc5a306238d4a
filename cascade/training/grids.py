"""Contact sheets that show how far a stage is."""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn

from cascade.conditioning.low_resolution import quantise
from cascade.data.training_images import TrainingImages
from cascade.devices import Precision
from cascade.imaging.writing import contact_sheet
from cascade.stage import Stage


def sample_grid(
    stage: Stage, images: TrainingImages, count: int, *, precision: Precision
) -> Image.Image:
    """Sample with fixed seeds and the labels of the first images.

    Args:
        stage: with averaged weights.
        images: those that it is trained on.
        count: how many to show.
        precision: of the network.

    Returns:
        One picture; an upsampler's shows the small image, the sample and the truth side by side.
    """
    shown = [images[position] for position in range(count)]
    labels = torch.tensor([sample.labels for sample in shown]) if shown[0].labels else None
    low_res = None
    if stage.is_upsampler:
        small = [sample.low_res for sample in shown if sample.low_res is not None]
        low_res = torch.stack(small).to(stage.device)
    samples = stage.sample(list(range(count)), labels=labels, low_res=low_res, precision=precision)
    if low_res is None:
        return contact_sheet(samples)
    truth = torch.stack([sample.image for sample in shown]).to(stage.device)
    enlarged = nn.functional.interpolate(quantise(low_res), size=truth.shape[-1])
    return contact_sheet(torch.stack([enlarged, samples, truth], dim=1).flatten(0, 1), columns=6)
