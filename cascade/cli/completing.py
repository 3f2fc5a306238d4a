"""What the shell offers when the user presses Tab: pipelines, recipes, their keys, classes.

`cascade --install-completion` sets it up. Every function here takes the context of the command, if
it needs it, and the beginning of the word, and returns the words that may follow. None of them
loads weights, and a recipe or pipeline that cannot be read offers nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import typer


def pipelines(incomplete: str) -> list[str]:
    """Names of the bundled pipelines that have weights."""
    from cascade.recipe.finding import list_recipes, recipe_name
    from cascade.saving.pipelines import has_weights

    paths = [path for path in list_recipes("pipelines") if has_weights(path.parent)]
    return _beginning(incomplete, map(recipe_name, paths))


def stage_recipes(incomplete: str) -> list[str]:
    """Names of the bundled stage recipes."""
    return _beginning(incomplete, _recipe_names("stages"))


def pipeline_recipes(incomplete: str) -> list[str]:
    """Names of the bundled pipeline recipes."""
    return _beginning(incomplete, _recipe_names("pipelines"))


def recipes(incomplete: str) -> list[str]:
    """Names of all bundled recipes."""
    return _beginning(incomplete, (*_recipe_names("stages"), *_recipe_names("pipelines")))


def recipe_keys(ctx: typer.Context, incomplete: str) -> list[str]:
    """The keys of the recipe that the command line names, each as `section.key=`."""
    from cascade.errors import CascadeError
    from cascade.recipe.reading import load_any_recipe

    name = ctx.params.get("stage") or ctx.params.get("name") or ""
    with suppress(CascadeError):
        keys = _leaves(load_any_recipe(name).model_dump(mode="json"))
        return _beginning(incomplete, (f"{key}=" for key in keys))
    return []


def recipe_sections(incomplete: str) -> list[str]:
    """The sections of recipes, such as `train` and `condition.text`."""
    from cascade.recipe.describing import find_key_groups

    return _beginning(incomplete, (each.place for each in find_key_groups()))


def classes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The class names of the pipeline that the command line names."""
    from cascade.errors import CascadeError
    from cascade.saving.pipelines import local_folder

    with suppress(CascadeError, OSError, ValueError, KeyError, AttributeError, TypeError):
        # an option without its value ends click's parsing, and leaves the arguments in `args`
        folder = local_folder(ctx.params.get("pipeline") or next(iter(ctx.args), ""))
        names = [] if folder is None else list(_class_names(folder))
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in _beginning(last, names)]
    return []


def _class_names(folder: Path) -> Iterator[str]:
    """The class names in the files of a pipeline's stages, read without importing torch."""
    for file in sorted(folder.glob("stages/*/stage.json")):
        conditions = json.loads(file.read_text(encoding="utf-8"))["contract"]["conditions"]
        for condition in conditions.values():
            fields = condition.get("fields")  # those of captions have no vocabulary
            if isinstance(fields, Mapping):
                yield from chain.from_iterable(fields.values())


def _recipe_names(kind: Any) -> list[str]:
    from cascade.recipe.finding import list_recipes, recipe_name

    return [recipe_name(path) for path in list_recipes(kind)]


def _beginning(incomplete: str, names: Any) -> list[str]:
    """The names that begin with a text, each once."""
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all values, such as `train.images`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"
