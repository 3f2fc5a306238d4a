"""`cascade train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli import names
from cascade.cli.verbosity import Verbosity, note, verbosity

if TYPE_CHECKING:
    from cascade.recipe.sections import StageRecipe

Device = Annotated[
    str | None,
    typer.Option(help="Where to train: cpu, cuda, cuda:1, mps …; default: the best device."),
]


def train(
    stage: names.StageRecipe,
    overrides: names.Changes = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; default: runs/NAME.")
    ] = None,
    device: Device = None,
) -> None:
    """Train one stage. Repeat the command to resume an interrupted run.

    Examples:

    cascade train emoji-64

    cascade train my-stage.yaml data.path=photos train.images=200_000 --out runs/mine
    """
    from cascade.recipe.finding import find_recipe
    from cascade.recipe.reading import load_stage_recipe
    from cascade.training.processes import make_accelerator, together

    make_accelerator(device)
    with together():
        file = find_recipe(stage, "stages")
        recipe = load_stage_recipe(file, overrides or [])
    train_recipe(recipe, file, out or Path("runs") / recipe.name, device)


def train_recipe(recipe: StageRecipe, file: Path, folder: Path, device: str | None) -> None:
    """Train the stage of a recipe and show the progress.

    Args:
        recipe: the recipe of the stage.
        file: the file that it comes from, for error messages.
        folder: folder of the run.
        device: where to train; None for the best device.
    """
    from cascade.building.training import build_trainer
    from cascade.cli.progress import TrainingProgress
    from cascade.recipe.faults import fault_of

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
    images_seen, validation = trainer.state.images_seen, trainer.validation
    if trainer.stopped_early:
        note(f"stopped after {images_seen} images, because the validation loss no longer falls.")
    elif images_seen < recipe.train.images:
        note(f"stopped after {images_seen} images; repeat the command to resume.")
    if trainer.stopped_early or images_seen >= recipe.train.images:
        note(f"wrote the trained stage to {folder / 'stage'}")
    if validation is not None and validation.best is not None:
        best = validation.best
        note(
            f"the validation loss is lowest after {best.images} images; that stage is "
            f"{folder / 'stage-best'}"
        )
