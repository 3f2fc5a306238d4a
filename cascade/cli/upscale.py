"""`cascade upscale`."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import bulk, restoring
from cascade.recipe.finding import UPSCALER

Scale = Annotated[
    float | None,
    typer.Option(min=1, max=64, help="Scale factor, such as 2, 3.5 or 8. Default: the model's."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Largest tile: as many pixels as a square of this side. Default: what memory allows.",
    ),
]
Augmentation = Annotated[
    float | None, typer.Option(help="Noise level added to the input, to hide small defects.")
]
Denoise = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of the measured noise and compression to remove; 0 keeps the grain. For "
        "models with the condition defects. Default: the model's.",
    ),
]
NoConsistency = Annotated[
    bool,
    typer.Option("--no-consistency", help="Do not make the downscaled result equal the input."),
]
Range = Annotated[
    tuple[int, int] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Values that are black and white in the inputs, such as 0 4095 for a 12-bit camera; "
        "results keep the same scale.",
    ),
]
Axis = Annotated[
    int | None,
    typer.Option(min=0, max=2, help="For bands: axis along which NIfTI volumes are sliced."),
]
Nodata = Annotated[
    float | None,
    typer.Option(help="For bands: value that marks missing data, besides NaN and the file's own."),
]


@restoring.with_shared_options
def upscale(
    shared: restoring.Shared,
    model: restoring.Model = UPSCALER,
    scale: Scale = None,
    tile: Tile = None,
    augmentation: Augmentation = None,
    denoise: Denoise = None,
    no_consistency: NoConsistency = False,
    value_range: Range = None,
    axis: Axis = None,
    nodata: Nodata = None,
) -> None:
    """Upscale images of any size: one, a folder, or many, shared between processes.

    Run the same command again to continue where it stopped. Images that fail are listed with the
    reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade upscale photo.jpg -o large.jpg

    cascade upscale photos 'scans/**/*.tif' -o large --scale 2 --compare

    cascade upscale photo.jpg -o large.jpg --map -n 8

    accelerate launch --num_processes 8 -m cascade.cli upscale 'shards/*.tar' -o large
    """
    from cascade.bulk.commands import prepare_upscaling
    from cascade.restoration.upscaling import Upscaling

    if scale == 1:  # typer's own range includes its end
        raise typer.BadParameter("--scale must be above 1.")
    settings = {"augmentation_level": augmentation, "denoise": denoise}
    request = shared.request(model, settings, range=value_range, axis=axis, nodata=nodata)
    upscaling = Upscaling(
        scale=scale,
        seed=shared.seed,
        tile_px=tile,
        consistent=False if no_consistency else None,
    )
    bulk.work_through(
        lambda on_progress: prepare_upscaling(request, upscaling, on_progress=on_progress),
        shared.workers,
        dry_run=shared.dry_run,
    )
