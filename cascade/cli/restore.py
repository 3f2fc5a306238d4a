"""`cascade restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, restoring, upscale

Mask = Annotated[
    Path | None,
    typer.Option(
        help="A picture of the same size, white where it is damaged. Default: what is "
        "transparent. Not for models that were trained on pairs."
    ),
]
Grow = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pixels by which the mask grows: scratches have soft edges that masks miss. "
        "Default: 2.",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1, help="Longer side, in pixels, of the part around the mask that the model sees."
    ),
]


@restoring.with_shared_options
def restore(
    shared: restoring.Shared,
    model: restoring.OwnModel = None,
    mask: Mask = None,
    grow: Grow = None,
    window: Window = None,
    tile: upscale.Tile = None,
    augmentation: upscale.Augmentation = None,
    axis: upscale.Axis = None,
    nodata: upscale.Nodata = None,
) -> None:
    """Mend scratches and holes that a mask names, or restore whole pictures as your pairs show.

    With a model that was trained on pairs of the same size, each picture becomes the other one of
    its pair: damaged to clean, one band to another, grey to colour. The size stays; upscale the
    results to use the upsamplers of a pipeline too. Every other model draws what is masked so that
    it fits its surroundings; everything else keeps its exact values, and grey pictures stay grey.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
    reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade restore scan.png --mask scratches.png --model photo-x4 -o clean.png

    cascade restore scans -o restored --model runs/restore-pairs --compare
    """
    from cascade.bulk.restoring import Mending, prepare_restoring
    from cascade.restoration.restoring import Restoration

    settings = {"augmentation_level": augmentation}
    request = shared.request(model, settings, axis=axis, nodata=nodata)
    mending = Mending(mask=mask, grow_px=grow, window_px=window)
    restoration = Restoration(seed=shared.seed, tile_px=tile)
    bulk.work_through(
        lambda on_progress: prepare_restoring(
            request, restoration, mending, on_progress=on_progress
        ),
        shared.workers,
    )
