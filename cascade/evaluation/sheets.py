"""The pictures of an evaluation: samples, nearest training pictures, before and after.

Shapes: B images, H and W pixels.
"""

from __future__ import annotations

import torch

from cascade.contract import Contract
from cascade.evaluation.coverage import nearest_neighbours
from cascade.evaluation.findings import Findings
from cascade.evaluation.pictures import Pictures
from cascade.evaluation.scores import Sheet, Task, short
from cascade.imaging.writing import contact_sheet, from_uint8

MOST_NEIGHBOURS = 8
COLUMNS = 6


def make_sheets(
    task: Task, found: Findings, training: Pictures | None, contract: Contract
) -> list[Sheet]:
    """Lay out what the report shows.

    Args:
        task: of the pipeline.
        found: with the pictures.
        training: pictures to show beside samples, or None.
        contract: of the last stage.
    """
    if task != "generate":
        return [_before_and_after(found)]
    sheets = [
        Sheet(
            "Samples",
            f"{name.lower()}, not chosen",
            contact_sheet(from_uint8(shown), columns=COLUMNS),
        )
        for name, shown in found.pictures.items()
    ]
    neighbours = _neighbours(found, training, contract)
    return sheets if neighbours is None else [*sheets, neighbours]


def _before_and_after(found: Findings) -> Sheet:
    rows = torch.stack([from_uint8(each) for each in found.pictures.values()], dim=1)
    sheet = contact_sheet(rows.flatten(0, 1), columns=rows.shape[1])
    return Sheet("Before and after", ", ".join(found.pictures), sheet)


def _neighbours(found: Findings, training: Pictures | None, contract: Contract) -> Sheet | None:
    """The samples that come nearest to training pictures, of those that are kept to be shown."""
    if training is None or found.samples is None or found.training is None:
        return None
    shown = found.samples.shown
    near = nearest_neighbours(found.samples.features[: len(shown)], found.training.features)
    closest = near.distances.argsort()[:MOST_NEIGHBOURS]
    theirs, _ = training.read(near.indices[closest].tolist(), contract)
    pairs = torch.stack([from_uint8(shown[closest]), theirs], dim=1)
    far = ", ".join(short(float(each)) for each in near.distances[closest])
    return Sheet(
        "Nearest training pictures",
        f"in pairs: a sample, and the training picture nearest to it, nearest first, of the first "
        f"{len(shown)} samples; distances {far}",
        contact_sheet(pairs.flatten(0, 1), columns=4),
    )
