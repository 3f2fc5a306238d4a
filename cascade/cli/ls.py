"""`cascade ls`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cascade.cli.documents import AsJson, Document


class Listed(NamedTuple):
    """One bundled recipe.

    Attributes:
        kind: `pipeline` or `stage`.
        name: the name of the recipe.
        has_weights: whether it is a pipeline whose weights are bundled.
        description: one line about it; may be empty.
    """

    kind: str
    name: str
    has_weights: bool
    description: str


def ls(as_json: AsJson = False) -> Document | None:
    """List the bundled stages and pipelines.

    Example: cascade ls
    """
    from cascade.cli.tables import print_rows

    if as_json:
        return {"recipes": [each._asdict() for each in _bundled()]}
    rows = (
        (each.kind, each.name, "bundled" if each.has_weights else "-", each.description)
        for each in _bundled()
    )
    print_rows(rows, ("kind", "name", "weights", "description"))


def _bundled() -> Iterator[Listed]:
    from cascade.recipe.finding import list_recipes, recipe_name
    from cascade.recipe.yaml_files import read_yaml
    from cascade.saving.pipelines import has_weights

    for path in list_recipes("pipelines"):
        description = read_yaml(path).get("description", "")
        yield Listed("pipeline", recipe_name(path), has_weights(path.parent), description)
    for path in list_recipes("stages"):
        description = read_yaml(path).get("description", "")
        yield Listed("stage", recipe_name(path), False, description)
