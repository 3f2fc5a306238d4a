"""Finds trained stages by name: those of runs, of folders, and of saved or bundled pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cascade.errors import RecipeError, WeightsError, nearest
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_pipeline_recipe
from cascade.saving.chain_folder import saved_names
from cascade.saving.pipelines import DOUBT, INDEX, has_weights, local_folder
from cascade.saving.stage_folder import stage_in


@dataclass(frozen=True)
class StagePlace:
    """Where a trained stage lies.

    Attributes:
        folder: folder of the stage.
        recipe: file of the recipe that it was trained with; None if it is not known.
        model: folder of its pipeline or run, where expected errors lie if they were measured.
        previous: folder of the stage before it in its pipeline; None if there is none.
    """

    folder: Path
    recipe: Path | None
    model: Path
    previous: Path | None = None


def find_stage(name: str | Path) -> Path:
    """Find the folder of a trained stage; see `find_place`."""
    return find_place(name).folder


def find_place(name: str | Path) -> StagePlace:
    """Find a trained stage.

    Args:
        name: the folder of a run or of a stage, a stage of a pipeline such as `emoji-1024/base`, or
            a pipeline of one stage such as `photo-x4`.

    Raises:
        WeightsError: if there is no such stage; the message names the stages of the pipeline.
    """
    folder = stage_in(Path(name))
    if folder is not None:
        measured = (each for each in (Path(name), folder.parent) if (each / DOUBT).is_file())
        return StagePlace(folder, _recipe_of(folder), next(measured, folder))
    name = str(name).rstrip("/")
    pipeline = _pipeline(name)
    if pipeline is not None:
        stages = _stages_in(pipeline)
        if len(stages) != 1:
            names = ", ".join(f"{name}/{each}" for each in stages)
            raise WeightsError(f"{name} is a pipeline; name one of its stages: {names}.")
        return _in_pipeline(pipeline, stages[0])
    before, _, stage = name.rpartition("/")
    pipeline = _pipeline(before) if before else None
    if pipeline is None:
        raise WeightsError(
            f"no trained stage in {name}; train it first, or name another run, or a stage of a "
            "pipeline such as emoji-1024/base."
        )
    stages = _stages_in(pipeline)
    if stage not in stages:
        raise WeightsError(f"no stage {stage!r} in {before}: {nearest(stage, stages)}")
    return _in_pipeline(pipeline, stage)


def _pipeline(name: str) -> Path | None:
    """The folder of a saved pipeline."""
    folder = local_folder(name)
    return folder if folder is not None and has_weights(folder) else None


def _stages_in(pipeline: Path) -> list[str]:
    """The names of the stages of a pipeline, in order."""
    return saved_names(pipeline / "stages")


def _in_pipeline(pipeline: Path, stage: str) -> StagePlace:
    folders = [pipeline / "stages" / each for each in _stages_in(pipeline)]
    place = folders.index(pipeline / "stages" / stage)
    previous = folders[place - 1] if place else None
    return StagePlace(folders[place], _recipe_of(folders[place]), pipeline, previous)


def _recipe_of(folder: Path) -> Path | None:
    """The recipe of a stage: in its run, or in its pipeline's recipe."""
    if (folder.parent / "recipe.yaml").is_file():
        return folder.parent / "recipe.yaml"
    pipeline = folder.parents[1] if len(folder.parents) > 1 else folder
    recipe = pipeline / "pipeline.yaml"
    if not (pipeline / INDEX).is_file() or not recipe.is_file():
        return None
    try:
        sections = load_pipeline_recipe(recipe).stages
        own = next(each for each in sections if each.name == folder.name)
        return find_recipe(own.recipe, "stages", beside=recipe)
    except (RecipeError, StopIteration):
        return None
