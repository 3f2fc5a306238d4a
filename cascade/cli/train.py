"""`cascade train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    stage: Annotated[str, typer.Argument(help="A stage recipe: name or file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; default: runs/NAME.")
    ] = None,
) -> None:
    """Train one stage. The same command again goes on where it stopped.

    Examples:

    cascade train emoji-64

    cascade train my-stage.yaml data.path=photos train.images=200_000 --out runs/mine
    """
    from cascade.building.training import build_trainer
    from cascade.cli.progress import TrainingProgress
    from cascade.recipe.finding import find_recipe
    from cascade.recipe.reading import load_stage_recipe
    from cascade.training.processes import make_accelerator, together

    make_accelerator()
    with together():
        recipe = load_stage_recipe(find_recipe(stage, "stages"), overrides or [])
    folder = out or Path("runs") / recipe.name
    progress = TrainingProgress(recipe.name, recipe.train.images)
    trainer = build_trainer(recipe, folder, report=progress.update)
    progress.start_at(trainer.state.images_seen)
    if not trainer.accelerator.is_main_process:
        trainer.run()
        return
    with progress:
        trainer.run()
    seen = trainer.state.images_seen
    if seen < recipe.train.images:
        typer.echo(f"stopped after {seen} images; the same command goes on from there.")
    else:
        typer.echo(f"{folder / 'stage'} holds the trained stage.")
