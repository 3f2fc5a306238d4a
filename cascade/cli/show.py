"""`cascade show`."""

from __future__ import annotations

import typer

from cascade.cli import names
from cascade.cli.documents import AsJson, Document


def show(
    name: names.Recipe,
    overrides: names.Changes = None,
    as_json: AsJson = False,
) -> Document | None:
    """Print a recipe in full, with every default and your changes.

    Example: cascade show emoji-64 train.batch_size=32
    """
    from rich.console import Console
    from rich.syntax import Syntax

    from cascade.recipe.reading import dump_recipe, load_any_recipe

    recipe = load_any_recipe(name, overrides or [])
    if as_json:
        return recipe.model_dump(mode="json")
    text = dump_recipe(recipe)
    console = Console()
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:  # in a pipe or file it must stay valid YAML, so no line is wrapped
        typer.echo(text, nl=False)
