"""Builds the trainer that a stage recipe describes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from cascade.building.data_notes import DataNotes
from cascade.building.pipelines import find_stage
from cascade.building.stages import build_stage, check_crop_suits_network
from cascade.data.generated_images import GeneratedImages
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import RecipeError
from cascade.recipe.reading import dump_recipe, load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.saving.atomic import atomic_file
from cascade.saving.differences import differences
from cascade.stage_kinds import load_stage
from cascade.training.checkpoint import checkpoints
from cascade.training.generated_pool import generated_pool
from cascade.training.processes import make_accelerator, together
from cascade.training.run_folder import check_same_run
from cascade.training.settings import TrainingSettings
from cascade.training.starting_point import start_from
from cascade.training.trainer import Trainer

logger = logging.getLogger(__name__)


def build_trainer(
    recipe: StageRecipe,
    out: Path,
    *,
    report: Callable[[dict[str, float]], None] | None = None,
    verbose: bool = False,
) -> Trainer:
    """Build stage, data and trainer of a recipe, and write the recipe into the run's folder.

    Args:
        recipe: the recipe of the stage.
        out: folder of the run.
        report: called with each line of the training log, see `Trainer`.
        verbose: whether to log every label out of step and every file that is not an image by its
            name, instead of their number and a few.

    Raises:
        CascadeError: if recipe, data and folder do not fit together.
    """
    make_accelerator()
    with together():
        _check_same_network(out, recipe)
    data = recipe.data.model_dump()
    opening = {key: data.pop(key) for key in ("path", "only", "name_pattern", "cache_dir")}
    with together():
        source = open_source(**opening)
        torch.manual_seed(recipe.train.seed)
        notes = DataNotes(source, recipe)
        stage = build_stage(recipe, notes.vocabulary)
        lines = notes.lines(verbose=verbose)
        check_crop_suits_network(recipe, stage)
        images = TrainingImages(source, stage.contract, seed=recipe.train.seed, **data)
        if recipe.train.init_from is not None and not checkpoints(out / "checkpoints"):
            start_from(stage, load_stage(find_stage(Path(recipe.train.init_from))))
    images.generated = build_pool(recipe, images, out / "generated")
    settings = TrainingSettings(**recipe.train.model_dump(exclude={"init_from"}))
    trainer = Trainer(stage, images, out, settings, report=report)
    with together():
        if trainer.accelerator.is_main_process:
            for line in lines:
                logger.warning("%s", line)
            if trainer.state.images_seen > 0:
                _log_changes(out / "recipe.yaml", recipe)
            with atomic_file(out / "recipe.yaml") as temporary:
                temporary.write_text(dump_recipe(recipe), encoding="utf-8")
    return trainer


def build_pool(recipe: StageRecipe, images: TrainingImages, folder: Path) -> GeneratedImages | None:
    """Generate images with the previous stage, if a condition of the recipe asks for them."""
    for name, options in recipe.condition:
        generated = getattr(options, "generated", None)
        if generated is None or generated.fraction == 0:
            continue
        with together():
            if generated.by is None:
                raise RecipeError(
                    f"condition.{name}.generated.fraction needs condition.{name}.generated.by: the "
                    "folder of the run or the stage that makes the images."
                )
            previous = load_stage(find_stage(Path(generated.by)))
        return generated_pool(
            previous,
            images,
            folder,
            condition=name,
            count=generated.images,
            fraction=generated.fraction,
            strength=generated.strength,
        )
    return None


def _check_same_network(out: Path, recipe: StageRecipe) -> None:
    """Check that a resumed run keeps its network, and name the recipe keys that differ."""
    if not checkpoints(out / "checkpoints"):
        return
    try:
        before = load_stage_recipe(out / "recipe.yaml")
    except RecipeError:  # of another version
        return
    if before.name == recipe.name:
        networks = [{"network": each.network.model_dump(mode="json")} for each in (before, recipe)]
        check_same_run(out, *networks)


def _log_changes(before: Path, recipe: StageRecipe) -> None:
    """Log the settings that a resumed run changes; all of these may change."""
    try:
        old = load_stage_recipe(before).model_dump(mode="json")
    except RecipeError:  # of another version
        return
    for key, value, new_value in differences(old, recipe.model_dump(mode="json")):
        logger.info("resuming with %s=%s, which was %s.", key, new_value, value)
