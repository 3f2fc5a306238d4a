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
            help="The teacher: PIPELINE/STAGE, the folder of a stage or run, or the name of a "
            "pipeline with one stage."
        ),
    ],
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Number of sampling steps of the student.")
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
    """Distil a stage into a few-step student. Repeat the command to resume it.

    The student learns from a trained stage, with the images and conditions of its training.
    Guidance is distilled too, so the student needs one network call per step.

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
