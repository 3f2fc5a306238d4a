"""`cascade show`."""

from __future__ import annotations

from typing import Annotated

import typer


def show(
    name: Annotated[str, typer.Argument(help="A stage or pipeline recipe: name or file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value changes.")] = None,
) -> None:
    """Print a recipe in full, with every default and your changes.

    Example: cascade show emoji-64 train.batch_size=32
    """
    from rich.console import Console
    from rich.syntax import Syntax

    from cascade.recipe import dump_recipe, load_any_recipe

    recipe = load_any_recipe(name, overrides or [])
    Console().print(Syntax(dump_recipe(recipe), "yaml", background_color="default"))
