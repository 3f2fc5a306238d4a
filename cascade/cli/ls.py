"""`cascade ls`."""

from __future__ import annotations


def ls() -> None:
    """List the bundled stages and pipelines.

    Example: cascade ls
    """
    from rich.console import Console
    from rich.table import Table

    from cascade.recipe.finding import list_recipes, recipe_name
    from cascade.recipe.reading import load_pipeline_recipe, load_stage_recipe
    from cascade.saving.pipelines import has_weights

    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "weights", "description"):
        table.add_column(heading)
    for path in list_recipes("pipelines"):
        recipe = load_pipeline_recipe(path)
        bundled = "bundled" if has_weights(path.parent) else "-"
        table.add_row("pipeline", recipe_name(path), bundled, recipe.description)
    for path in list_recipes("stages"):
        table.add_row("stage", recipe_name(path), "-", load_stage_recipe(path).description)
    Console().print(table)
