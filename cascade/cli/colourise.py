"""`cascade colourise`, also spelt `cascade colorize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, restoring

Hints = Annotated[
    Path | None, typer.Option(help="A picture of the same size with a few coloured strokes.")
]


@restoring.with_shared_options
def colourise(
    shared: restoring.Shared,
    model: restoring.Model = "photo-colour",
    hints: Hints = None,
) -> None:
    """Colour grey pictures, or recolour others: one, a folder, or many, shared between processes.

    Run the same command again to continue where it stopped. Pictures that fail are named with the
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
            request, colouring, hints=hints, on_progress=on_progress
        ),
        shared.workers,
    )
