"""`cascade validate`."""

from __future__ import annotations

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
) -> None:
    """Check that a recipe is valid and that its stages can be built and joined.

    Example: cascade validate my-stage.yaml
    """
    from cascade.building.pipelines import check_recipe
    from cascade.recipe.finding import find_any_recipe
    from cascade.recipe.reading import load_any_recipe

    for line in check_recipe(load_any_recipe(name, overrides or []), find_any_recipe(name)):
        typer.echo(line)
