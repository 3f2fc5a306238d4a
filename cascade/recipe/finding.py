"""Finds recipes: bundled ones by name, others by path."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from cascade.errors import RecipeError, nearest

RecipeKind = Literal["stages", "pipelines"]
UPSCALER = "photo-x4-restore"  # the bundled pipeline that enlarges unless another one is named


def recipes_root() -> Path:
    """The folder that holds `stages` and `pipelines`: in the package, or the checkout beside it."""
    package = Path(__file__).parents[1]
    if (package / "_recipes").is_dir():
        return package / "_recipes"
    if (package.parent / "pyproject.toml").is_file():
        return package.parent
    raise RecipeError(f"no recipes found in {package}; reinstall cascade-diffusion.")


def list_recipes(kind: RecipeKind) -> list[Path]:
    """The bundled recipes of a kind, sorted by name."""
    pattern = {"stages": "*.yaml", "pipelines": "*/pipeline.yaml"}[kind]
    return sorted((recipes_root() / kind).glob(pattern))


def recipe_name(path: Path) -> str:
    """The name of a recipe on the command line."""
    return path.parent.name if path.name == "pipeline.yaml" else path.stem


def find_recipe(name: str, kind: RecipeKind, *, beside: Path | None = None) -> Path:
    """Find a recipe by path, or a bundled one by name.

    Args:
        name: a YAML file, a folder with `pipeline.yaml`, or a bundled name such as `emoji-64`.
        kind: whether to look for a stage or a pipeline.
        beside: file of the recipe that contains `name`; a relative path starts at its folder. None
            if it starts at the working folder.

    Raises:
        RecipeError: if no recipe has that name; the message offers the nearest names.
    """
    path = Path(name) if beside is None else beside.parent / name
    if path.is_file():
        return path
    if kind == "pipelines" and (path / "pipeline.yaml").is_file():
        return path / "pipeline.yaml"
    bundled = {recipe_name(each): each for each in list_recipes(kind)}
    short = name.removeprefix(f"{kind}/")
    if short in bundled:
        return bundled[short]
    word = kind.removesuffix("s")
    raise RecipeError(
        f"no {word} recipe {name!r}, neither a file nor bundled: {nearest(name, bundled)}"
    )


def find_any_recipe(name: str) -> Path:
    """Find a recipe of either kind.

    Args:
        name: a YAML file, a folder with `pipeline.yaml`, or a bundled name. If a stage and a
            pipeline share the name, it stands for the stage, and `pipelines/NAME` for the pipeline.

    Raises:
        RecipeError: if no recipe has that name; the message offers the nearest names.
    """
    for kind in get_args(RecipeKind):
        try:
            return find_recipe(name, kind)
        except RecipeError:
            continue
    bundled = {recipe_name(path) for kind in get_args(RecipeKind) for path in list_recipes(kind)}
    raise RecipeError(
        f"no recipe {name!r}, neither a file nor bundled: {nearest(name, sorted(bundled))}"
    )
