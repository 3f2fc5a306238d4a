"""Checks recipes, and chains trained stages as a pipeline recipe describes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cascade.building.stages import apply_sampling, check_stage
from cascade.building.trained import StagePlace, find_place
from cascade.chain import StageChain
from cascade.conditioning.labels import Labels
from cascade.contract import Contract
from cascade.errors import ContractError, OutputError, RecipeError, WeightsError, nearest
from cascade.pipeline import CascadePipeline
from cascade.recipe.faults import fault_in, fault_of
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_pipeline_recipe, load_stage_recipe
from cascade.recipe.sections import PipelineRecipe, PipelineStageSection, StageRecipe
from cascade.restoration.expected_error import ExpectedError, load_expected_error
from cascade.sampling.settings import SamplingSettings
from cascade.saving.differences import differences
from cascade.saving.pipelines import has_weights
from cascade.stage import Stage
from cascade.stage_kinds import load_stage

logger = logging.getLogger(__name__)


def check_recipe(recipe: StageRecipe | PipelineRecipe, path: Path | None = None) -> list[str]:
    """Build the stages of a recipe, without weights in memory, and describe them.

    Args:
        recipe: the recipe of a stage or a pipeline.
        path: the recipe's file; relative paths of a pipeline's stages start at its folder. None if
            they start at the working folder.

    Returns:
        One line per stage, and for a pipeline one that says that they join.

    Raises:
        CascadeError: if a stage cannot be built, or the stages of a pipeline do not join.
    """
    if isinstance(recipe, StageRecipe):
        with fault_of(path):
            return [_describe(recipe, check_stage(recipe))]
    lines = []
    previous: tuple[str, Contract] | None = None
    for number, section in enumerate(recipe.stages):
        stage_recipe, stage = _checked_stage(section, number, path)
        lines.append(f"{section.name}: {_describe(stage_recipe, stage)}")
        if previous is not None:
            stage.contract.check_follows(previous[1], name=section.name, previous_name=previous[0])
        previous = (section.name, stage.contract)
    return [*lines, f"{recipe.name}: the stages fit together"]


def _checked_stage(
    section: PipelineStageSection, number: int, path: Path | None
) -> tuple[StageRecipe, Stage]:
    """Build a stage of a pipeline without weights, with the settings that it has there."""
    file = find_recipe(section.recipe, "stages", beside=path)
    recipe = load_stage_recipe(file)
    with fault_of(file):
        stage = check_stage(recipe)
    place = f"stages.{number}.sampling"
    with fault_of(path), fault_in(place, tuple(type(section.sampling).model_fields)):
        settings = apply_sampling(stage.sampling, section.sampling, place)
        return recipe, stage.with_sampling(settings)


def _describe(recipe: StageRecipe, stage: Stage) -> str:
    millions = sum(p.numel() for p in stage.parameters()) / 1e6
    return (
        f"{recipe.name}: {stage.contract.description} -> {stage.space.size_text}, "
        f"{recipe.network.kind} with {millions:.2f} M parameters{_and_classes(stage)}"
    )


def _and_classes(stage: Stage) -> str:
    """What the number of parameters leaves out: the classes become known with the data."""
    has_classes = any(each.name == Labels.name for each in stage.conditions)
    return " and those of its classes" if has_classes else ""


def chain_pipeline(
    recipe_path: Path,
    runs: Mapping[str, Path],
    out: Path,
    *,
    dtype: str = "fp32",
    card: Path | None = None,
    known_texts: Path | None = None,
    overwrite: bool = False,
) -> CascadePipeline:
    """Join trained stages as a pipeline recipe describes, and save them with the recipe.

    Args:
        recipe_path: file of the pipeline's recipe.
        runs: the trained stages by their names in the pipeline, each as for `find_stage`; default
            for each: the run `runs/RECIPE`.
        out: folder of the saved pipeline.
        dtype: precision of the saved weights: `fp32`, `bf16` or `fp16`.
        card: file with the text of the model card; None for a description of the stages.
        known_texts: file with a text on each line; the stages carry the embeddings of these, so
            that they need no text encoder. None for no texts.
        overwrite: whether to replace a pipeline that is in the folder already.

    Raises:
        CascadeError: if a stage is missing or damaged, the stages do not join, or the folder holds
            a pipeline that may not be replaced.
    """
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype not in dtypes:
        raise RecipeError(f"dtype must be one of {', '.join(dtypes)}, got {dtype!r}.")
    if has_weights(out) and not overwrite:
        raise OutputError(
            f"{out} holds a pipeline already; choose another folder, or allow overwriting."
        )
    recipe = load_pipeline_recipe(recipe_path)
    card_text = None if card is None else _read_text(card)
    names = [section.name for section in recipe.stages]
    for name in runs:
        if name not in names:
            raise RecipeError(f"{recipe_path}: no stage {name!r}; {nearest(name, names)}")
    stages, measured = {}, []
    for number, section in enumerate(recipe.stages):
        place = _place_of(section, runs, recipe_path)
        stage = load_stage(place.folder)
        measured.append(load_expected_error(place.model))
        with fault_of(recipe_path):
            key = f"stages.{number}.sampling"
            settings = apply_sampling(stage.sampling, section.sampling, key)
        stages[section.name] = stage.with_sampling(_fitted(settings, stage, section.name))
    if known_texts is not None:
        stages = _with_known_texts(stages, _read_text(known_texts).split("\n"))
    pipeline = CascadePipeline(StageChain(stages, expected_error=_of_all(measured)))
    pipeline.save_pretrained(
        out,
        dtype=dtypes[dtype],
        card=card_text,
        recipe=_read_text(recipe_path),
    )
    return pipeline


def _place_of(
    section: PipelineStageSection, runs: Mapping[str, Path], recipe_path: Path
) -> StagePlace:
    """Find a trained stage in the run that was named for it, or else in the recipe's own."""
    run = runs.get(section.name)
    if run is not None:
        return find_place(run)
    run = _default_run(section, recipe_path)
    try:
        return find_place(run)
    except WeightsError as error:
        raise WeightsError(
            f"no trained stage in {run}; train it first, or name the run of this stage by "
            f"--stage {section.name}=RUN."
        ) from error


def _of_all(measured: Sequence[ExpectedError | None]) -> ExpectedError | None:
    """The expected errors that a pipeline keeps; None if there are none, or several.

    Args:
        measured: those of the runs or pipelines of its stages.
    """
    different = {each for each in measured if each is not None}
    if len(different) > 1:
        logger.warning(
            "the expected errors of %d models are left out, because none applies to the whole "
            "pipeline; measure them with evaluate --apply-doubt.",
            len(different),
        )
    return different.pop() if len(different) == 1 else None


def _fitted(settings: SamplingSettings, stage: Stage, name: str) -> SamplingSettings:
    """Fit the recipe's settings, which are those of the teacher, to a student in its place."""
    student = stage.contract.student
    if student is None:
        return settings
    fitted = student.fitted(settings)
    changes = differences(settings.to_dict(), fitted.to_dict())
    if changes:
        logger.info(
            "%s is a %s: %s.", name, student.text, ", ".join(c.as_change() for c in changes)
        )
    return fitted


def _with_known_texts(stages: Mapping[str, Stage], texts: list[str]) -> dict[str, Stage]:
    """Let the stages that take text carry the embeddings of some.

    Raises:
        CascadeError: if none takes text, or they are too many.
    """
    takes_text = {name for name, stage in stages.items() if stage.contract.takes_text}
    if not takes_text:
        raise ContractError("known texts are for a pipeline with a stage that takes text.")
    return {
        name: stage.with_known_texts(texts) if name in takes_text else stage
        for name, stage in stages.items()
    }


def _default_run(section: PipelineStageSection, recipe_path: Path) -> Path:
    """The folder in which `cascade train` trains the stage of a recipe by default."""
    path = find_recipe(section.recipe, "stages", beside=recipe_path)
    return Path("runs") / load_stage_recipe(path).name


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error}).") from error
