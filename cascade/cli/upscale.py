"""`cascade upscale`."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import bulk, restoring
from cascade.recipe.finding import UPSCALER

Scale = Annotated[
    float | None,
    typer.Option(min=1, max=64, help="For example 2, 3.5 or 8. Default: the model's."),
]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Largest tile: as many pixels as a square of this side. Default: what memory allows.",
    ),
]
Augmentation = Annotated[
    float | None, typer.Option(help="Noise level added to the input, to hide small faults.")
]
Denoise = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Share of the measured noise and compression to repair; at 0 the picture keeps "
        "its grain. For models that measure it. Default: the model's.",
    ),
]
NoConsistency = Annotated[
    bool,
    typer.Option("--no-consistency", help="Let the downscaled result differ from the input."),
]
Range = Annotated[
    tuple[int, int] | None,
    typer.Option(
        "--range",
        metavar="LOW HIGH",
        help="Numbers in the pictures to take for black and white, such as 0 4095 of a camera "
        "of 12 bits; results keep these numbers.",
    ),
]
Axis = Annotated[
    int | None,
    typer.Option(min=0, max=2, help="Of bands: axis along which NIfTI volumes are cut."),
]
Nodata = Annotated[
    float | None,
    typer.Option(help="Of bands: a number of missing ones, besides NaN and the file's own."),
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
    """Upscale pictures of any size: one, a folder, or many, shared between processes.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
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
    )
