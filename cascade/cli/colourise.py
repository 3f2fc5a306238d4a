"""`cascade colourise`, also spelt `cascade colorize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, restoring

Hints = Annotated[
    Path | None, typer.Option(help="An image of the same size with a few coloured strokes.")
]

Recolour = Annotated[
    bool,
    typer.Option(
        "--recolour",
        help="Include images that already have colours. Default: skip them, except in shards and "
        "where only one image is named.",
    ),
]


@restoring.with_shared_options
def colourise(
    shared: restoring.Shared,
    model: restoring.Model = "photo-colour",
    hints: Hints = None,
    recolour: Recolour = False,
) -> None:
    """Colourise greyscale images: one, a folder, or many, shared between processes.

    With many images, those that already have colours are skipped and counted, unless --recolour is
    given; sepia and other tints count as greyscale. A single image that you name and the images of
    shards are always colourised.

    Run the same command again to continue where it stopped. Images that fail are listed with the
    reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade colourise scan.png -o coloured.png

    cascade colourise scan.png -o variants -n 4 --hints strokes.png

    cascade colourise scans -o coloured --compare
    """
    from cascade.bulk.commands import prepare_colouring
    from cascade.restoration.colouring import Colouring

    request, colouring = shared.request(model), Colouring(seed=shared.seed)
    bulk.work_through(
        lambda on_progress: prepare_colouring(
            request, colouring, hints=hints, recolour=recolour, on_progress=on_progress
        ),
        shared.workers,
        dry_run=shared.dry_run,
    )
