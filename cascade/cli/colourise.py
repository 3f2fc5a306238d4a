"""`cascade colourise`, which is `cascade colorize` too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk


def colourise(
    inputs: bulk.Inputs,
    out: bulk.Out,
    model: Annotated[
        str, typer.Option(help="A bundled pipeline, a saved one's folder, or a Hub id.")
    ] = "photo-colour",
    variants: Annotated[
        int,
        typer.Option("--variants", "-n", min=1, help="Seeds to try, with a sheet of all of them."),
    ] = 1,
    hints: Annotated[
        Path | None, typer.Option(help="A picture of the same size with a few coloured strokes.")
    ] = None,
    steps: bulk.Steps = None,
    sampler: bulk.Sampler = None,
    guidance: bulk.Guidance = None,
    temperature: bulk.Temperature = None,
    seed: bulk.Seed = 0,
    device: bulk.Device = None,
    image_format: bulk.Format = None,
    compare: bulk.Compare = False,
    no_metadata: bulk.NoMetadata = False,
    overwrite: bulk.Overwrite = False,
) -> None:
    """Colour grey pictures, or colour ones anew: one, a folder, or many, shared between processes.

    The same command again goes on where it stopped. A bad picture is left behind and listed at the
    end, which is then 1.

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
        device=device,
        image_format=None if image_format is None else image_format.value,
        compare=compare,
        metadata=not no_metadata,
        overwrite=overwrite,
    )
    wanted = Colouring(
        seed=seed,
        steps=steps,
        sampler=None if sampler is None else sampler.value,
        guidance=guidance,
        temperature=temperature,
    )
    bulk.work_through(
        lambda report: prepare_colouring(
            request, wanted, variants=variants, hints=hints, report=report
        )
    )
