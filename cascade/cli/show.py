"""`cascade show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cascade.cli import names
from cascade.cli.documents import AsJson, Document

if TYPE_CHECKING:
    from cascade.recipe.sections import PipelineRecipe


def show(
    name: names.Recipe,
    overrides: names.Changes = None,
    as_json: AsJson = False,
) -> Document | None:
    """Print a recipe in full, with every default and your changes.

    For a pipeline, this is its folder, its classes and the sampling settings of each stage. A
    pipeline with weights keeps them in its stages, where sweep --apply changes them. Without
    weights, or if you change stages, they are those that the recipes state.

    Examples:

    cascade show emoji-64 train.batch_size=32

    cascade show pipelines/photo-x4
    """
    from cascade.recipe.reading import dump_values, load_any_recipe
    from cascade.recipe.sections import PipelineRecipe

    recipe = load_any_recipe(name, overrides or [])
    if not isinstance(recipe, PipelineRecipe):
        document = recipe.model_dump(mode="json")
        return document if as_json else _print_yaml(dump_values(document))
    place, document = _pipeline(recipe, name, overrides or [])
    if as_json:
        return {**place, **document}
    weights = "with weights" if place["has_weights"] else "without weights"
    example = f"{recipe.stages[0].name}.steps=20"
    head = [
        f"in {place['folder']}, {weights}",
        *(f"{field}: {', '.join(classes)}" for field, classes in place["classes"].items()),
        f"--set {example} changes a setting; cascade keys sampling lists all",
    ]
    return _print_yaml("".join(f"# {line}\n" for line in head) + dump_values(document))


def _pipeline(
    recipe: PipelineRecipe, name: str, overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Folder and classes of a pipeline; and its recipe, with the settings of its stages."""
    from cascade.recipe.finding import find_any_recipe
    from cascade.saving.chain_folder import STAGES, saved_contracts
    from cascade.saving.pipelines import has_weights

    path = find_any_recipe(name)
    saved = has_weights(path.parent)
    if saved and not any(each.startswith("stages") for each in overrides):
        settings = _saved_sampling(path.parent / STAGES)
    else:
        settings = _stated_sampling(recipe, path)
    stages = [
        {"name": each.name, "recipe": each.recipe, "sampling": settings.get(each.name, {})}
        for each in recipe.stages
    ]
    values = recipe.model_dump(mode="json", exclude={"stages"})
    contracts = saved_contracts(path.parent / STAGES) if saved else []
    conditions = [condition for each in contracts for condition in each.conditions]
    classes = {field: list(names) for each in conditions for field, names in each.classes.items()}
    place = {"folder": str(path.parent), "has_weights": saved, "classes": classes}
    return place, {**values, "stages": stages}


def _saved_sampling(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings that each saved stage reads; none for a stage that takes no steps."""
    from cascade.chain_settings import settings_read
    from cascade.saving.chain_folder import saved_contracts, saved_sampling

    return {
        name: {} if settings is None else settings_read(contract, settings)
        for (name, settings), contract in zip(
            saved_sampling(folder).items(), saved_contracts(folder), strict=True
        )
    }


def _stated_sampling(recipe: PipelineRecipe, path: Path) -> dict[str, dict[str, Any]]:
    """The settings that the recipes of a pipeline and of its stages state."""
    from cascade.recipe.finding import find_recipe
    from cascade.recipe.reading import load_stage_recipe

    settings = {}
    for stage in recipe.stages:
        own = load_stage_recipe(find_recipe(stage.recipe, "stages", beside=path)).sampling
        stated = [each.model_dump(mode="json", exclude_none=True) for each in (own, stage.sampling)]
        settings[stage.name] = stated[0] | stated[1]
    return settings


def _print_yaml(text: str) -> None:
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console()
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:  # in a pipe or file it must stay valid YAML, so no line is wrapped
        typer.echo(text, nl=False)
