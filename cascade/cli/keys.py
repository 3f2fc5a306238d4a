"""`cascade keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cascade.cli import completing

if TYPE_CHECKING:
    from cascade.recipe.describing import Key, KeyGroup


def keys(
    section: Annotated[
        str | None,
        typer.Argument(
            help="Only this section, such as train or condition.text.",
            autocompletion=completing.recipe_sections,
        ),
    ] = None,
) -> None:
    """Explain the keys of recipes: their types, defaults and meanings.

    Example: cascade keys train
    """
    from cascade.cli.tables import print_rows
    from cascade.recipe.describing import find_key_groups

    rows = (
        (_name(each, key), key.values, key.default, key.meaning)
        for each in find_key_groups(section)
        for key in each.keys
    )
    plain = ([cell.replace("`", "") for cell in row] for row in rows)
    print_rows(plain, ("key", "value", "default", "meaning"))


def _name(group: KeyGroup, key: Key) -> str:
    """The full key, and for which value of another key there is such a key."""
    place = "" if group.place in ("stage", "pipeline") else f"{group.place}."
    return f"{place}{key.name}" + (f" ({group.choice})" if group.choice else "")
