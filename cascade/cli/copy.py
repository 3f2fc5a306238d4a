"""`cascade copy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def copy(
    name: Annotated[str, typer.Argument(help="A stage or pipeline recipe.")],
    destination: Annotated[Path, typer.Argument(help="File to write, or a folder.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Copy a recipe as a starting point for your own.

    Example: cascade copy emoji-64 my-stage.yaml
    """
    from cascade.errors import OutputError
    from cascade.recipe.finding import find_any_recipe
    from cascade.saving.atomic import atomic_file

    source = find_any_recipe(name)
    if destination.is_dir():
        destination = destination / source.name
    if destination.exists() and not force:
        raise OutputError(f"{destination} exists; choose another name, or add --force.")
    with atomic_file(destination) as temporary:
        temporary.write_bytes(source.read_bytes())
    typer.echo(f"wrote {destination}; edit it, then run: cascade validate {destination}")
