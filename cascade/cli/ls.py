"""`cascade ls`."""

from __future__ import annotations

from collections.abc import Iterator


def ls() -> None:
    """List the bundled stages and pipelines.

    Example: cascade ls
    """
    from cascade.cli.tables import print_rows

    print_rows(_rows(), ("kind", "name", "weights", "description"))


def _rows() -> Iterator[tuple[str, str, str, str]]:
    from cascade.recipe.finding import list_recipes, recipe_name
    from cascade.recipe.yaml_files import read_yaml
    from cascade.saving.pipelines import has_weights

    for path in list_recipes("pipelines"):
        weights = "bundled" if has_weights(path.parent) else "-"
        yield "pipeline", recipe_name(path), weights, read_yaml(path).get("description", "")
    for path in list_recipes("stages"):
        yield "stage", recipe_name(path), "-", read_yaml(path).get("description", "")
