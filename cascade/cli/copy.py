"""`cascade copy`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from cascade.cli import completing
from cascade.cli.verbosity import note


def copy(
    name: Annotated[
        str,
        typer.Argument(help="A stage or pipeline recipe.", autocompletion=completing.recipes),
    ],
    destination: Annotated[Path, typer.Argument(help="File to write, or a folder.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Copy a recipe as a starting point for your own. The copy is named after its file.

    Example: cascade copy emoji-64 my-stage.yaml
    """
    from cascade.errors import OutputError
    from cascade.recipe.finding import find_any_recipe, recipe_name
    from cascade.saving.atomic import atomic_file

    source = find_any_recipe(name)
    if destination.is_dir():
        destination = destination / source.name
    if destination.exists() and not force:
        raise OutputError(f"{destination} exists; choose another name, or add --force.")
    text = _renamed(source.read_text(encoding="utf-8"), recipe_name(destination.absolute()))
    with atomic_file(destination) as temporary:
        temporary.write_text(text, encoding="utf-8")
    needs_images = re.search(r"(?m)^data:", text) is not None
    command = f"cascade validate {shlex.quote(str(destination))}"
    command += " data.path=YOUR_IMAGES" if needs_images else ""
    note(f"wrote {destination}; edit it, then run: {command}")


def _renamed(text: str, name: str) -> str:
    """A recipe's text with another name in it."""
    return re.sub(r"(?m)^name:.*$", lambda _: f"name: {_yaml(name)}", text, count=1)


def _yaml(text: str) -> str:
    """A text as YAML: in quotes, unless it is a plain word; 010, yes and null are no texts."""
    import yaml

    is_plain = re.fullmatch(r"[a-z][\w.-]*", text) and yaml.safe_load(text) == text
    return text if is_plain else json.dumps(text)
