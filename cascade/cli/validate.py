"""`cascade validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import completing


def validate(
    name: Annotated[
        str,
        typer.Argument(
            help="A stage or pipeline recipe: name or file.", autocompletion=completing.recipes
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes as key=value.", autocompletion=completing.recipe_keys),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Name every label and file that does not fit."),
    ] = False,
) -> None:
    """Check that a recipe is valid, that its stages can be built and joined, and its labels.

    Example: cascade validate my-stage.yaml
    """
    from cascade.building.data_notes import describe_data
    from cascade.building.pipelines import check_recipe
    from cascade.data.sources import open_source
    from cascade.recipe.finding import find_any_recipe
    from cascade.recipe.reading import load_any_recipe
    from cascade.recipe.sections import StageRecipe

    recipe = load_any_recipe(name, overrides or [])
    for line in check_recipe(recipe, find_any_recipe(name)):
        typer.echo(line)
    if isinstance(recipe, StageRecipe) and Path(recipe.data.path).exists():
        opening = recipe.data.model_dump(include={"path", "only", "name_pattern", "cache_dir"})
        for line in describe_data(open_source(**opening), recipe, verbose=verbose):
            typer.echo(line)
