"""`cascade colourise`, also spelt `cascade colorize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, names, sampling


def colourise(
    inputs: bulk.InputNames,
    out: bulk.Out,
    model: bulk.Model = "photo-colour",
    variants: bulk.Variants = 1,
    hints: Annotated[
        Path | None, typer.Option(help="A picture of the same size with a few coloured strokes.")
    ] = None,
    steps: sampling.Steps = None,
    sampler: sampling.SamplerName = None,
    guidance: sampling.Guidance = None,
    temperature: sampling.Temperature = None,
    changes: sampling.Set = None,
    seed: bulk.Seed = 0,
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
    """Colour grey pictures, or recolour others: one, a folder, or many, shared between processes.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
    reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade colourise scan.png -o coloured.png

    cascade colourise scan.png -o variants -n 4 --hints strokes.png

    cascade colourise scans -o coloured --compare
    """
    from cascade.bulk.commands import Request, prepare_colouring
    from cascade.restoration.colouring import Colouring

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
    )
    colouring = Colouring(seed=seed)
    bulk.work_through(
        lambda on_progress: prepare_colouring(
            request, colouring, variants=variants, hints=hints, on_progress=on_progress
        ),
        workers,
    )
