"""Turns a user's request to restore many pictures into jobs and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cascade.bulk.editing import Repainting, edits
from cascade.bulk.making import Method, PartProgress
from cascade.bulk.preparing import OnProgress, Preparation, Request
from cascade.bulk.restored_files import RestoredFiles
from cascade.bulk.work import Bulk
from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.restoration.restoring import Restoration, restore_picture, restorer_of


def prepare_restoring(
    request: Request,
    restoration: Restoration,
    repainting: Repainting,
    *,
    on_progress: OnProgress | None = None,
) -> Bulk:
    """Prepare the restoration of pictures; results are written by `Bulk.run`.

    Args:
        request: the pictures and the place of the results.
        restoration: how a model that was trained on pairs restores each picture.
        repainting: how any other model mends the parts that a mask names.
        on_progress: called with every change.

    Raises:
        CascadeError: if inputs, settings, model and folder do not fit together.
    """
    plan = Preparation("restore", request, restoration.seed)
    if not plan.model.is_of_pairs:
        return edits(plan, repainting, on_progress=on_progress)
    if repainting.mask is not None:
        raise ContractError(
            f"{request.model} restores whole pictures, as its pairs show; leave out the mask."
        )
    stages = plan.load_stages(lambda stages: [restorer_of(stages)])
    restorer = restorer_of(list(stages.values()))
    files = RestoredFiles(stage=restorer, restoration=restoration, request=request)

    def make(
        pictures: Sequence[Picture], seeds: Sequence[int], progress: PartProgress
    ) -> list[Picture]:
        return [
            restore_picture([restorer], picture, replace(restoration, seed=seed), progress=progress)
            for picture, seed in zip(pictures, seeds, strict=True)
        ]

    method = Method(
        command=plan.command,
        description="restored",
        make=make,
        settings={
            **plan.settings(stages, [restorer]),
            "tile_px": restoration.tile_px,
            **({} if request.axis is None else {"axis": request.axis}),
            **({} if request.nodata is None else {"nodata": request.nodata}),
        },
        work=math.prod,
        metadata=request.metadata,
        overwrite=request.overwrite,
        truncated=request.truncated,
        before="same",
        make_file=files.make if plan.has_bands else None,
    )
    return plan.bulk(method, on_progress)
