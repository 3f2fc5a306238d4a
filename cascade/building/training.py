"""Builds the trainer that a stage recipe describes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.data_notes import DataNotes
from cascade.building.data_preview import first_images_warnings
from cascade.building.encoders import encode_images, load_encoder
from cascade.building.spaces import reading_options, with_range
from cascade.building.stages import build_stage, check_stage, check_values
from cascade.building.students import (
    build_objective,
    shared_vocabulary,
    student_warnings,
    teacher_of,
    with_digest,
)
from cascade.building.trained import find_stage
from cascade.building.validation import open_data, overlap_warnings, usable_by
from cascade.contract import Contract
from cascade.data.generated_images import GeneratedImages
from cascade.data.remote import default_cache
from cascade.data.source import ImageSource
from cascade.data.training_images import TrainingImages
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, ContractError, RecipeError, WeightsError
from cascade.networks.adapters import AdapterSettings, add_adapter, merged
from cascade.recipe.faults import fault_in
from cascade.recipe.reading import dump_recipe, load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.recipe.training_sections import LoraSection
from cascade.saving.atomic import atomic_file
from cascade.saving.differences import differences
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training.checkpoint import Checkpoint, checkpoints, read_newest
from cascade.training.generated_pool import generated_pool
from cascade.training.image_list import OtherImagesError
from cascade.training.processes import is_main_process, make_accelerator, together
from cascade.training.run_folder import check_run_folder, check_same_run
from cascade.training.settings import TrainingSettings
from cascade.training.starting_point import StartingPoint, start_from
from cascade.training.trainer import Trainer

STAGE_SECTIONS = ("space", "condition", "network", "diffusion", "student")
logger = logging.getLogger(__name__)


def build_trainer(
    recipe: StageRecipe,
    out: Path,
    *,
    report: Callable[[dict[str, float]], None] | None = None,
    verbose: bool = False,
    device: str | None = None,
) -> Trainer:
    """Build stage, data and trainer of a recipe, and write the recipe into the run's folder.

    Args:
        recipe: the recipe of the stage.
        out: folder of the run.
        report: called with each line of the training log, see `Trainer`.
        verbose: whether to log every label out of step and every file that is not an image by its
            name, instead of their number and a few.
        device: where to train, such as `cuda:1`; see `make_accelerator`.

    Raises:
        CascadeError: if recipe, data and folder do not fit together.
    """
    make_accelerator(device)
    with together():
        check_run_folder(out, recipe.data.path)
        if isinstance(recipe.data.validation, str):
            check_run_folder(out, recipe.data.validation)
    with together():
        data = open_data(recipe)
        source, held_out = data
        if recipe.data.percentiles is not None:
            check_stage(recipe)  # before all images are read to measure their range
        recipe = with_range(recipe, source, out)
        _check_same_stage(out, recipe)
        torch.manual_seed(recipe.train.seed)
        notes = DataNotes(source, recipe)
        teacher = teacher_of(recipe)
        encoder = load_encoder(recipe)
        vocabulary = shared_vocabulary(notes.vocabulary, teacher)
        stage = build_stage(recipe, vocabulary, encoder=encoder)
        with_digest(stage, teacher)
        notes.look_at(stage.conditions)
        lines = notes.lines(verbose=verbose) + overlap_warnings(data, recipe)
        if held_out is not None:
            held_out, left_out = usable_by(stage, held_out)
            lines += left_out
        check_values(recipe, stage)
        objective = build_objective(recipe, teacher)
        objective.check(stage)
        lines += student_warnings(stage, teacher)
        sources = [source] if held_out is None else [source, held_out]
        prepare_conditions(stage, sources, recipe.data.cache_dir)
        if make_accelerator().is_main_process:
            lines += first_images_warnings(source, recipe)
        sets = [_read(each, stage, recipe, encoder) for each in sources]
        images, validation = sets[0], sets[1] if held_out is not None else None
        _start(stage, recipe, out, teacher)
    images.generated = build_pool(recipe, images, out / "generated")
    settings = TrainingSettings(**recipe.train.model_dump(exclude={"init_from", "lora"}))
    try:
        trainer = Trainer(
            stage,
            images,
            out,
            settings,
            validation=validation,
            report=report,
            device=device,
            objective=objective,
        )
    except OtherImagesError as error:
        raise CascadeError(
            f"{error.difference}. A run resumes only with its own images and labels; restore them, "
            f"or train from these weights in another folder with train.init_from={out}."
        ) from error
    with together():
        if trainer.accelerator.is_main_process:
            for line in lines:
                logger.warning("%s", line)
            if trainer.state.images_seen > 0:
                is_complete = trainer.state.images_seen >= recipe.train.images
                recipe = _resumed(out / "recipe.yaml", recipe, is_complete=is_complete)
            with atomic_file(out / "recipe.yaml") as temporary:
                temporary.write_text(dump_recipe(recipe), encoding="utf-8")
    return trainer


def _read(
    source: ImageSource, stage: Stage, recipe: StageRecipe, encoder: AutoencoderStage | None
) -> TrainingImages:
    """Read the images of a source as a recipe describes; training and validation read alike."""
    options, cache_dir = reading_options(recipe), recipe.data.cache_dir
    device = make_accelerator().device
    options |= encode_images(stage, encoder, source, options, cache_dir, device)
    return TrainingImages(source, stage.contract, seed=recipe.train.seed, **options)


def prepare_conditions(
    stage: Stage, sources: Sequence[ImageSource], cache_dir: str | None = None
) -> None:
    """Do once what the conditions need of the annotations of all images.

    Args:
        stage: the stage in training.
        sources: the images for training, and those for validation.
        cache_dir: folder of the caches; None for the user's own.
    """
    cache = default_cache().parent if cache_dir is None else Path(cache_dir)
    for each in stage.conditions:
        annotations = (
            source.readable_labels(index) for source in sources for index in range(len(source))
        )
        each.prepare(annotations, cache / "encoded", make_accelerator().device)


def _start(stage: Stage, recipe: StageRecipe, out: Path, teacher: Stage | None) -> None:
    """Start from the weights that a recipe names, unless the run has a checkpoint of its own.

    A student starts from its teacher's weights if the recipe names no others. An adapter is added
    last, to the weights that were loaded.
    """
    lora, init_from = recipe.train.lora, recipe.train.init_from
    if lora is not None and init_from is None:
        raise RecipeError("train.lora adapts a trained stage: name it as train.init_from.")
    start = _load_start(stage, init_from, out, teacher)
    if lora is None:
        return
    if start is not None and start.new:
        raise RecipeError(
            f"train.lora leaves all other weights as they are, but {', '.join(start.new)} would "
            "have to be trained; keep the trained stage's conditions and classes, or train without "
            "train.lora."
        )
    with fault_in("train.lora", tuple(LoraSection.model_fields), errors=(ContractError,)):
        _add_lora(stage, lora)


def _add_lora(stage: Stage, lora: LoraSection) -> None:
    """Add a new adapter to a stage, and freeze everything else."""
    stage.requires_grad_(False)
    add_adapter(stage.trunk, AdapterSettings(**lora.model_dump()))


def _load_start(
    stage: Stage, init_from: str | None, out: Path, teacher: Stage | None
) -> StartingPoint | None:
    """Load the weights to start from; None if nothing was loaded that the recipe names."""
    has_own = bool(checkpoints(out / "checkpoints"))
    if init_from is None:
        if teacher is not None and not has_own:
            start_from(stage, teacher)
        return None
    if has_own:
        if is_main_process():
            logger.info("train.init_from is not used, because the run has its own checkpoint.")
        return None
    trained, place = _load_trained(Path(init_from))
    start = start_from(stage, trained)
    if is_main_process():
        logger.info("starting at image 0 from %s: %s.", place, start.text())
    return start


def _load_trained(run: Path) -> tuple[Stage, Path]:
    """The trained stage of a run and its folder; if the run was killed, that of a checkpoint."""
    try:
        folder = find_stage(run)
    except WeightsError:
        checkpoint = read_newest(run / "checkpoints")
        if checkpoint is None:
            raise
        return _stage_of_checkpoint(run, checkpoint), checkpoint.folder
    return load_stage(folder), folder


def _stage_of_checkpoint(run: Path, checkpoint: Checkpoint) -> Stage:
    """The stage of a run with the averaged weights of a checkpoint."""
    contract = Contract.from_dict(checkpoint.values["about"]["stage"]["contract"])
    classes = {field: names for c in contract.conditions for field, names in c.classes.items()}
    recipe = load_stage_recipe(run / "recipe.yaml")
    stage = build_stage(recipe, lambda fields: {field: classes[field] for field in fields})
    if recipe.train.lora is not None:
        _add_lora(stage, recipe.train.lora)
    averaged = checkpoint.tensors["ema.safetensors"]
    weights = {k: averaged.get(k, v) for k, v in checkpoint.tensors["stage.safetensors"].items()}
    stage.load_state_dict(weights)
    return stage.with_network(merged(stage.network)) if isinstance(stage, DiffusionStage) else stage


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
            previous = load_stage(find_stage(generated.by))
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


def _check_same_stage(out: Path, recipe: StageRecipe) -> None:
    """Check that a resumed run keeps its stage, and name the recipe keys that differ."""
    if not checkpoints(out / "checkpoints"):
        return
    try:
        before = load_stage_recipe(out / "recipe.yaml")
    except RecipeError:  # of another version
        return
    if before.name == recipe.name:
        check_same_run(out, _stage_values(before), _stage_values(recipe))


def _stage_values(recipe: StageRecipe) -> dict[str, Any]:
    """The values of a recipe that belong to the stage itself, which never change."""
    values = recipe.model_dump(mode="json", include=set(STAGE_SECTIONS))
    values["train"] = recipe.model_dump(mode="json", include={"train": {"lora"}})["train"]
    for condition in values["condition"].values():
        (condition or {}).pop("generated", None)  # says which images it is trained on
    return values


def _resumed(file: Path, recipe: StageRecipe, *, is_complete: bool) -> StageRecipe:
    """Log what a resumed run changes, and return the recipe that describes it from now on.

    Args:
        file: the run's recipe so far.
        recipe: the new one.
        is_complete: whether nothing is left to train, so that only sampling settings can change.
    """
    try:
        before = load_stage_recipe(file)
    except RecipeError:  # of another version
        return recipe
    result = before.model_copy(update={"sampling": recipe.sampling}) if is_complete else recipe
    values = [each.model_dump(mode="json") for each in (before, result, recipe)]
    for change in differences(values[0], values[1]):
        logger.info("resuming with %s.", change.as_change())
    for change in differences(values[1], values[2]):
        logger.warning("the run is complete, so this has no effect: %s.", change.as_change())
    return result
