"""`cascade restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, restoring, upscale

Mask = Annotated[
    Path | None,
    typer.Option(
        help="An image of the same size, white where the input is damaged. Default: the "
        "transparent pixels. Not for models that were trained on pairs."
    ),
]
Grow = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Pixels by which the mask grows, because scratches have soft edges. Default: 2.",
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
    """Remove scratches and holes marked by a mask, or restore images as learned from pairs.

    A model that was trained on pairs of the same size turns each image into the other one of its
    pair: damaged to clean, one band to another, greyscale to colour. The size stays the same;
    upscale the results to use the upsamplers of a pipeline too. Every other model inpaints the
    masked pixels; all others keep their exact values, and greyscale images stay grey.

    Run the same command again to continue where it stopped. Images that fail are listed with the
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
        dry_run=shared.dry_run,
    )
