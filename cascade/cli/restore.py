"""`cascade restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, restoring

GROW_PX = 2
Mask = Annotated[
    Path | None,
    typer.Option(
        help="A picture of the same size, white where it is damaged. Default: what is transparent."
    ),
]
Grow = Annotated[
    int,
    typer.Option(
        min=0, help="Pixels by which the mask grows: scratches have soft edges that masks miss."
    ),
]
Window = Annotated[
    int | None,
    typer.Option(min=1, help="Longer side, in pixels, of the part that the model sees."),
]


@restoring.with_shared_options
def restore(
    shared: restoring.Shared,
    model: restoring.Model,
    mask: Mask = None,
    grow: Grow = GROW_PX,
    window: Window = None,
) -> None:
    """Mend scratches, dust and holes of pictures; everything else keeps its exact values.

    It is `cascade edit` without words: what is masked is drawn to fit its surroundings, and grey
    pictures stay grey. Run the same command again to continue where it stopped. Pictures that fail
    are named with the reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade restore scan.png --mask scratches.png --model my-inpainter -o clean.png

    cascade restore scans --mask dust.png --grow 4 --model my-inpainter -o clean
    """
    from cascade.bulk.editing import Repainting, prepare_editing
    from cascade.restoration.editing import Editing

    request = shared.request(model)
    repainting = Repainting(
        command="restore",
        editing=Editing(grow_px=grow, stays_grey=True, window_px=window),
        mask=mask,
        seed=shared.seed,
    )
    bulk.work_through(
        lambda on_progress: prepare_editing(request, repainting, on_progress=on_progress),
        shared.workers,
    )
