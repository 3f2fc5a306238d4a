"""`cascade edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import bulk, generate, restoring

Uncrop = Annotated[
    str | None,
    typer.Option(
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="Pixels to add at each side and to fill (outpainting).",
    ),
]


Mask = Annotated[
    Path | None,
    typer.Option(
        help="An image of the same size, white where to inpaint. Default: the transparent pixels."
    ),
]
Prompt = Annotated[str | None, typer.Option(help="Prompt, for pipelines that take text.")]
Class = Annotated[
    str | None,
    typer.Option("--class", "-c", help="Class to generate, such as cat-face or cat-face,noto."),
]
Strength = Annotated[
    float,
    typer.Option(
        help="Above 0 and at most 1. Below 1, start from the input with noise and keep some of its "
        "content; without a mask, redraw the whole image.",
    ),
]
Resamplings = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="How often a stage that starts from noise repeats each step; 1 is fastest. "
        "Default: 5.",
    ),
]
JumpLength = Annotated[
    int | None,
    typer.Option("--jump-length", min=1, help="Number of steps to go back at a time. Default: 5."),
]
Window = Annotated[
    int | None,
    typer.Option(min=1, help="Longer side, in pixels, of the part that the model sees."),
]
Feather = Annotated[
    int, typer.Option(min=0, help="Width in pixels of a soft edge inside the mask.")
]


@restoring.with_shared_options
def edit(
    shared: restoring.Shared,
    model: restoring.OwnModel = None,
    mask: Mask = None,
    prompt: Prompt = None,
    negative: generate.Negative = None,
    labels: Class = None,
    uncrop: Uncrop = None,
    strength: Strength = 1.0,
    resamplings: Resamplings = None,
    jump_length: JumpLength = None,
    window: Window = None,
    feather: Feather = 0,
) -> None:
    """Inpaint a masked area, or outpaint at the sides; all other pixels keep their exact values.

    Run the same command again to continue where it stopped. Images that fail are listed with the
    reason and do not stop the others; the exit code is then 1.

    Examples:

    cascade edit scan.png --mask scratches.png --model my-inpainter -o clean.png

    cascade edit face.png --mask eyes.png --model emoji-1024 --class cat-face,noto -n 4 -o faces

    cascade edit photo.jpg --uncrop 64,0,64,0 --model my-inpainter -o wide.jpg

    cascade edit sketch.png --strength 0.6 --model emoji-1024 -o drawn.png
    """
    from cascade.bulk.editing import Repainting, prepare_editing
    from cascade.restoration.editing import Editing

    words = {"prompt": prompt, "negative_prompt": negative, "labels": labels}
    request = shared.request(model)
    repainting = Repainting(
        editing=Editing(
            strength=strength,
            resamplings=resamplings,
            jump_length=jump_length,
            window_px=window,
            feather_px=feather,
        ),
        mask=mask,
        uncrop=_sides(uncrop),
        words={name: text for name, text in words.items() if text is not None},
        seed=shared.seed,
    )
    bulk.work_through(
        lambda on_progress: prepare_editing(request, repainting, on_progress=on_progress),
        shared.workers,
        dry_run=shared.dry_run,
    )


def _sides(text: str | None) -> list[int] | None:
    """The numbers of `--uncrop`."""
    if text is None:
        return None
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if len(sides) != 4:
        raise typer.BadParameter(
            f"--uncrop takes LEFT,TOP,RIGHT,BOTTOM in pixels, such as 64,0,64,0; got {text!r}."
        )
    return sides
