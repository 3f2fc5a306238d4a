"""`cascade restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import bulk, names, sampling


def restore(
    inputs: bulk.InputNames,
    out: bulk.Out,
    model: bulk.Model,
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
    """Make the other image of a pair, of the same size: for stages that you trained on pairs.

    Damaged to clean, one band to another, grey to colour: whatever the pairs showed. A stage whose
    results are larger than its inputs runs in `cascade upscale`.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
    reason and do not stop the others; the exit code is then 1.

    Example: cascade restore scans -o restored --model runs/restore-pairs --compare
    """
    from cascade.bulk.preparing import Request
    from cascade.bulk.restoring import prepare_restoring
    from cascade.restoration.restoring import Restoration

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
        axis=axis,
        nodata=nodata,
    )
    restoration = Restoration(seed=seed, tile_px=tile)
    bulk.work_through(
        lambda on_progress: prepare_restoring(request, restoration, on_progress=on_progress),
        workers,
    )
