"""`cascade distil`, also spelt `cascade distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import names
from cascade.cli.train import Device, train_recipe


def distil(
    stage: Annotated[
        str,
        typer.Argument(
            help="The teacher: PIPELINE/STAGE, or the folder of a stage or of a run; a pipeline of "
            "one stage by its own name."
        ),
    ],
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Number of steps in which the student samples.")
    ],
    overrides: names.Changes = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the run; default: runs/NAME-STEPS."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--stage-recipe",
            help="The teacher's recipe, name or file; default: the one it is saved with.",
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Train a student that samples in a few steps. Repeat the command to resume it.

    The student learns from a trained stage, on the images and with the conditions that this stage
    was trained on. Guidance goes inside, so the student needs one call of the network in each step.

    Examples:

    cascade distil emoji-1024/base --steps 4 --out runs/base-4

    cascade distil runs/mine --steps 2 student.guidance=1.5 train.images=400_000
    """
    from cascade.building.students import distillation_recipe
    from cascade.training.processes import make_accelerator, together

    make_accelerator(device)
    with together():
        own, file = distillation_recipe(stage, steps, overrides or [], recipe)
    train_recipe(own, file, out or Path("runs") / own.name, device)
