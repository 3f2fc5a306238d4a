"""The pictures of an evaluation: samples, nearest training pictures, before and after.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.evaluation.coverage import nearest_neighbours
from cascade.evaluation.image_set import ImageSet
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.results import Sheet
from cascade.evaluation.tables import rounded
from cascade.imaging.writing import contact_sheet, from_uint8
from cascade.space import Space

MOST_NEIGHBOURS = 8
COLUMNS = 6


def samples_sheet(name: str, images: ImageSet) -> Sheet:
    """Show the first images of a set."""
    sheet = contact_sheet(from_uint8(images.shown), columns=COLUMNS)
    return Sheet("Samples", f"{name}, not chosen", sheet)


def neighbours_sheet(
    samples: ImageSet, training: ImageSet, pictures: RealPictures, space: Space
) -> Sheet:
    """Show the samples that are nearest to training pictures, beside these pictures.

    Args:
        samples: images of the whole pipeline, of which the first few appear in the sheet.
        training: features of all training pictures.
        pictures: these training pictures, to read the nearest ones.
        space: space of the last stage.
    """
    images = samples.shown
    near = nearest_neighbours(samples.features[: len(images)], training.features)
    closest = near.distances.argsort()[:MOST_NEIGHBOURS]
    theirs = pictures.read(near.indices[closest].tolist(), space)
    pairs = torch.stack([from_uint8(images[closest]), theirs], dim=1)
    distances = ", ".join(rounded(float(each)) for each in near.distances[closest])
    return Sheet(
        "Nearest training images",
        "pairs of a sample and the training image nearest to it, nearest pairs first, from the "
        f"first {len(images)} samples; distances {distances}",
        contact_sheet(pairs.flatten(0, 1), columns=4),
    )


def before_and_after_sheet(columns: Mapping[str, Tensor]) -> Sheet:
    """Show inputs, results and originals side by side, a row for each picture.

    Args:
        columns: images (B, 1 or 3, H, W) uint8 by caption. All are shown at the size of the last
            column, which holds the originals.
    """
    size = list(columns.values())[-1].shape[-2:]
    images = {
        name: F.interpolate(each, size=tuple(size)).expand(-1, 3, -1, -1)
        for name, each in columns.items()
    }
    rows = torch.stack([from_uint8(each) for each in images.values()], dim=1)
    sheet = contact_sheet(rows.flatten(0, 1), columns=rows.shape[1])
    return Sheet("Before and after", ", ".join(images), sheet)
