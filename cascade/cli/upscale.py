"""`cascade upscale`."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import bulk, names, sampling


def upscale(
    inputs: bulk.InputNames,
    out: bulk.Out,
    model: bulk.Model = "photo-x4",
    scale: Annotated[
        float | None,
        typer.Option(min=1, max=64, help="For example 2, 3.5 or 8. Default: the model's."),
    ] = None,
    variants: bulk.Variants = 1,
    steps: sampling.Steps = None,
    sampler: sampling.SamplerName = None,
    guidance: sampling.Guidance = None,
    temperature: sampling.Temperature = None,
    changes: sampling.Set = None,
    seed: bulk.Seed = 0,
    tile: bulk.Tile = None,
    augmentation: Annotated[
        float | None, typer.Option(help="Noise level added to the input, to hide small faults.")
    ] = None,
    denoise: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the measured noise and compression to repair; at 0 the picture keeps "
            "its grain. For models that measure it. Default: the model's.",
        ),
    ] = None,
    no_consistency: Annotated[
        bool,
        typer.Option("--no-consistency", help="Let the downscaled result differ from the input."),
    ] = False,
    value_range: Annotated[
        tuple[int, int] | None,
        typer.Option(
            "--range",
            metavar="LOW HIGH",
            help="Numbers in the pictures to take for black and white, such as 0 4095 of a camera "
            "of 12 bits; results keep these numbers.",
        ),
    ] = None,
    axis: Annotated[
        int | None,
        typer.Option(min=0, max=2, help="Of bands: axis along which NIfTI volumes are cut."),
    ] = None,
    nodata: Annotated[
        float | None, typer.Option(help="Of bands: the number of missing ones, besides NaN.")
    ] = None,
    device: bulk.Device = None,
    engine: names.Engine = None,
    lora: names.Lora = None,
    workers: bulk.Workers = 1,
    image_format: bulk.Format = None,
    pages: bulk.Pages = "all",
    truncated: bulk.Truncated = "refuse",
    compare: bulk.Compare = False,
    no_metadata: bulk.NoMetadata = False,
    overwrite: bulk.Overwrite = False,
) -> None:
    """Upscale pictures of any size: one, a folder, or many, shared between processes.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
    reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade upscale photo.jpg -o large.jpg

    cascade upscale photos 'scans/**/*.tif' -o large --scale 2 --compare

    accelerate launch --num_processes 8 -m cascade.cli upscale 'shards/*.tar' -o large
    """
    from cascade.bulk.commands import Request, prepare_upscaling
    from cascade.restoration.upscaling import Upscaling

    if scale == 1:  # typer's own range includes its end
        raise typer.BadParameter("--scale must be above 1.")
    request = Request(
        inputs=inputs,
        out=out,
        model=model,
        overrides=sampling.overrides(
            changes,
            steps=steps,
            sampler=sampler,
            guidance=guidance,
            temperature=temperature,
            augmentation_level=augmentation,
            denoise=denoise,
        ),
        device=device,
        engine=engine,
        adapters=sampling.adapters(lora),
        image_format=image_format,
        pages=pages,
        truncated=truncated,
        compare=compare,
        metadata=not no_metadata,
        overwrite=overwrite,
        range=value_range,
        axis=axis,
        nodata=nodata,
    )
    upscaling = Upscaling(
        scale=scale,
        seed=seed,
        tile_px=tile,
        consistent=False if no_consistency else None,
    )
    bulk.work_through(
        lambda on_progress: prepare_upscaling(
            request, upscaling, variants=variants, on_progress=on_progress
        ),
        workers,
    )
