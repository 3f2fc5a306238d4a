"""The stage that a recipe describes, with new weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from cascade.conditioning.condition import Condition, Vocabulary
from cascade.conditioning.kinds import CONDITIONS
from cascade.contract import Contract
from cascade.data.augmentation import Augmentation
from cascade.data.training_images import check_readable
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import DataError, RecipeError
from cascade.recipe.sections import Section, StageRecipe
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.training.objectives.table import make_objective


def build_stage(
    recipe: StageRecipe, vocabulary: Vocabulary, process: NoiseProcess | None = None
) -> DiffusionStage:
    """Make the stage that a recipe describes, with new weights.

    Args:
        recipe: the recipe of the stage.
        vocabulary: collects the class names of label fields from the data.
        process: the noise process; None for the one that the recipe describes.

    Raises:
        CascadeError: if the parts do not fit together.
    """
    return DiffusionStage.build(
        Contract(Space(**recipe.space.model_dump()), build_conditions(recipe, vocabulary)),
        process or build_process(recipe),
        network=recipe.network.kind,
        network_options=recipe.network.model_dump(exclude={"kind"}),
        sampling=apply_sampling(SamplingSettings(), recipe.sampling),
    )


def build_conditions(recipe: StageRecipe, vocabulary: Vocabulary) -> tuple[Condition, ...]:
    """Make the conditions of a recipe, in the order of the table of kinds.

    Raises:
        DataError: if the data lack what a condition needs; the message says how to train without
            it.
    """
    conditions = []
    for name, kind in CONDITIONS.items():
        options = getattr(recipe.condition, name, None)
        try:
            conditions += [] if options is None else [kind.of_recipe(options, vocabulary)]
        except DataError as error:
            text = str(error).removesuffix(".")
            raise DataError(
                f"{text}; or train without it: condition.{name}=null sampling.guidance=1."
            ) from error
    return tuple(conditions)


def build_process(recipe: StageRecipe) -> NoiseProcess:
    """Make the noise process that a recipe describes."""
    diffusion = recipe.diffusion.model_dump()
    schedule_keys = ("train_steps", "shift", "zero_terminal_snr")
    schedule = NoiseSchedule(
        diffusion.pop("schedule"), **{key: diffusion.pop(key) for key in schedule_keys}
    )
    return NoiseProcess(schedule, **diffusion)


def apply_sampling(settings: SamplingSettings, section: Section) -> SamplingSettings:
    """Apply a recipe's sampling section to the settings.

    Raises:
        ContractError: for a value that does not fit.
    """
    return settings.changed(**section.model_dump())


def check_stage(recipe: StageRecipe) -> DiffusionStage:
    """Build the stage of a recipe without weights in memory, and check all its numbers.

    Raises:
        CascadeError: if it cannot be built.
    """
    process = build_process(recipe)  # not on the meta device: the checks read its numbers
    with torch.device("meta"):
        stage = build_stage(recipe, _any_name, process)
    stage.check_settings(stage.sampling)
    make_objective(recipe.train.objective).check(stage)
    check_readable(stage.space)
    data = recipe.data
    Augmentation(crop_px=data.crop_px, flip=data.flip, rotate90=data.rotate90).check(stage.contract)
    check_crop_suits_network(recipe, stage)
    return stage


def check_crop_suits_network(recipe: StageRecipe, stage: DiffusionStage) -> None:
    """Check that the network takes crops of the recipe's size.

    Raises:
        RecipeError: naming the multiple that the size must be.
    """
    crop_px, multiple_px = recipe.data.crop_px, stage.network.size_multiple_px
    if crop_px is not None and crop_px % multiple_px:
        raise RecipeError(
            f"data.crop_px must be a multiple of {multiple_px} for this network, got {crop_px}."
        )


def _any_name(fields: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """A vocabulary for a check without data."""
    return {field: [f"any {field}"] for field in fields}
