"""`cascade train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import names
from cascade.cli.verbosity import Verbosity, note, verbosity


def train(
    stage: names.StageRecipe,
    overrides: names.Changes = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; default: runs/NAME.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Where to train: cpu, cuda, cuda:1, mps …; default: the best device."),
    ] = None,
) -> None:
    """Train one stage. Repeat the command to resume an interrupted run.

    Examples:

    cascade train emoji-64

    cascade train my-stage.yaml data.path=photos train.images=200_000 --out runs/mine
    """
    from cascade.building.training import build_trainer
    from cascade.cli.progress import TrainingProgress
    from cascade.recipe.faults import fault_of
    from cascade.recipe.finding import find_recipe
    from cascade.recipe.reading import load_stage_recipe
    from cascade.training.processes import make_accelerator, together

    make_accelerator(device)
    with together():
        file = find_recipe(stage, "stages")
        recipe = load_stage_recipe(file, overrides or [])
    folder = out or Path("runs") / recipe.name
    progress = TrainingProgress(recipe.name, recipe.train.images)
    with fault_of(file):
        trainer = build_trainer(
            recipe,
            folder,
            report=progress.update,
            device=device,
            verbose=verbosity() == Verbosity.VERBOSE,
        )
    progress.start_at(trainer.state.images_seen)
    if not trainer.accelerator.is_main_process:
        trainer.run()
        return
    with progress:
        trainer.run()
    images_seen = trainer.state.images_seen
    if images_seen < recipe.train.images:
        note(f"stopped after {images_seen} images; repeat the command to resume.")
    else:
        note(f"wrote the trained stage to {folder / 'stage'}")
