"""`cascade validate`."""

from __future__ import annotations

from typing import Annotated

import typer

from cascade.cli import names
from cascade.cli.verbosity import Verbosity, note, verbosity


def validate(
    name: names.Recipe,
    overrides: names.Changes = None,
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Check only the recipe, not its data.")
    ] = False,
) -> None:
    """Check that a recipe is valid, that its stages can be built and chained, and its data.

    The first 64 images that training would see are decoded; if all of them are too small, further
    ones until one fits. The exit code is 1 if training would fail on them; warnings do not change
    it. Missing data of a bundled recipe only causes a warning.

    Example: cascade validate my-stage.yaml data.path=photos
    """
    from cascade.building.data_preview import preview_data
    from cascade.building.pipelines import check_recipe
    from cascade.cli.progress import printable
    from cascade.recipe.finding import find_any_recipe
    from cascade.recipe.reading import load_any_recipe
    from cascade.recipe.sections import StageRecipe

    overrides = overrides or []
    recipe = load_any_recipe(name, overrides)
    for line in check_recipe(recipe, find_any_recipe(name)):
        note(line)
    if no_data or not isinstance(recipe, StageRecipe):
        return
    own_path = any(each.startswith("data.path=") for each in overrides)
    findings = preview_data(recipe, own_path=own_path, verbose=verbosity() == Verbosity.VERBOSE)
    for line in [*findings.facts, *(f"warning: {each}" for each in findings.warnings)]:
        note(printable(line))
    for each in findings.errors:
        typer.echo(printable(f"error: {each}"), err=True)
    if findings.errors:
        raise typer.Exit(1)
