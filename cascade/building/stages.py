"""The stage that a recipe describes, with new weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.encoders import (
    build_autoencoder_stage,
    check_encoder,
    encoded_space,
    is_autoencoder,
)
from cascade.building.spaces import colour_range, space_of
from cascade.building.students import build_objective
from cascade.conditioning.condition import Condition, Vocabulary
from cascade.conditioning.kinds import CONDITIONS
from cascade.contract import Contract
from cascade.data.annotations import NamePattern
from cascade.data.augmentation import Augmentation
from cascade.data.fitting import check_readable
from cascade.data.masking import check_masks, encoded_kind
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, DataError, RecipeError
from cascade.recipe.faults import fault_in
from cascade.recipe.network_sections import TrainedSection
from cascade.recipe.section import Section
from cascade.recipe.sections import StageRecipe
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.student import Student
from cascade.saving.stage_folder import read_network_options, stage_in
from cascade.space import Space
from cascade.stage import Stage
from cascade.vision.encoders import find_vision_facts


def build_stage(
    recipe: StageRecipe,
    vocabulary: Vocabulary,
    process: NoiseProcess | None = None,
    encoder: AutoencoderStage | None = None,
) -> Stage:
    """Make the stage that a recipe describes, with new weights.

    Args:
        recipe: the recipe of the stage.
        vocabulary: collects the class names of label fields from the data.
        process: the noise process; None for the one that the recipe describes.
        encoder: the encoder of the stage's latents; None if it makes none, or for a check.

    Raises:
        CascadeError: if the parts do not fit together.
    """
    with fault_in("space", _keys(recipe.space)):
        space = build_space(recipe, encoder)
    if is_autoencoder(recipe):
        with fault_in("network", _keys(recipe.network)):
            return build_autoencoder_stage(recipe, space)
    conditions = build_conditions(recipe, vocabulary)
    with fault_in("condition", tuple(CONDITIONS)):
        contract = Contract(space, conditions, build_student(recipe))
    process = process or build_process(recipe)
    student = contract.student
    sampling = apply_sampling(contract.default_sampling, recipe.sampling)
    if student is not None:
        with fault_in("student", _keys(recipe.student)):
            process.schedule.sampling_timesteps(student.steps)
    with fault_in("network", _keys(recipe.network)):
        network, options = _network_options(recipe.network)
        return DiffusionStage.build(
            contract, process, network=network, network_options=options, sampling=sampling
        )


def _network_options(section: Section) -> tuple[str, dict[str, Any]]:
    """The kind of a recipe's network, and the keyword arguments of its `build`."""
    if isinstance(section, TrainedSection):
        run = Path(section.stage)
        return read_network_options(stage_in(run) or run)
    options = section.model_dump()
    return options.pop("kind"), options


def build_space(recipe: StageRecipe, encoder: AutoencoderStage | None = None) -> Space:
    """Make the space that a recipe describes, with the facts about what encodes its images.

    Args:
        recipe: the recipe of the stage.
        encoder: the encoder of a stage that makes latents. That of embeddings is found and hashed.

    Raises:
        CascadeError: if the encoder of embeddings cannot be found, or makes others.
    """
    space, name = space_of(recipe), recipe.data.encoder
    if name is None or space.kind != "embeddings":
        return encoded_space(space, encoder)
    facts = find_vision_facts(name)
    for field in ("size", "channels"):
        ours, theirs = getattr(space, field), getattr(facts.space, field)
        if ours != theirs:
            raise ContractError(f"{field} must be {theirs} for the encoder {name}, got {ours}.")
    return replace(space, encoder=facts.sha256, encoder_name=facts.name)


def build_student(recipe: StageRecipe) -> Student | None:
    """Make the student that a recipe describes, without the hash of its teacher."""
    section = recipe.student
    if section is None:
        return None
    with fault_in("student", _keys(section)):
        return Student(
            steps=section.steps,
            guidance=section.guidance,
            guidance_interval=section.guidance_interval,
            teacher=section.teacher or "",
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
            with fault_in(f"condition.{name}", () if options is None else _keys(options)):
                conditions += [] if options is None else [kind.of_recipe(options, vocabulary)]
        except DataError as error:
            text = str(error).removesuffix(".")
            raise DataError(
                f"{text}; or train without it: condition.{name}=null sampling.guidance=1."
            ) from error
    if recipe.data.pairs is not None:
        conditions = [each.of_pairs() for each in conditions]
    return tuple(conditions)


def build_process(recipe: StageRecipe) -> NoiseProcess:
    """Make the noise process that a recipe describes."""
    diffusion = recipe.diffusion.model_dump()
    schedule_keys = ("train_steps", "shift", "zero_terminal_snr")
    with fault_in("diffusion", _keys(recipe.diffusion)):
        schedule = NoiseSchedule(
            diffusion.pop("schedule"), **{key: diffusion.pop(key) for key in schedule_keys}
        )
    with fault_in("diffusion", _keys(recipe.diffusion)):
        return NoiseProcess(schedule, **diffusion)


def apply_sampling(
    settings: SamplingSettings, section: Section, place: str = "sampling"
) -> SamplingSettings:
    """Apply a recipe's sampling section to the settings.

    Args:
        settings: the settings to change.
        section: the section, whose empty values change nothing.
        place: the keys that lead to the section.

    Raises:
        RecipeError: for a value that does not fit.
    """
    with fault_in(place, _keys(section)):
        return settings.changed(**section.model_dump())


def check_stage(recipe: StageRecipe) -> Stage:
    """Build the stage of a recipe without weights in memory, and check all its numbers.

    Raises:
        CascadeError: if it cannot be built.
    """
    process = build_process(recipe)  # not on the meta device: the checks read its numbers
    with torch.device("meta"):
        stage = build_stage(recipe, _any_name, process)
    check_values(recipe, stage)
    return stage


def check_values(recipe: StageRecipe, stage: Stage) -> None:
    """Check the values of a recipe that only its stage can judge.

    Raises:
        RecipeError: naming the first key whose value does not fit.
    """
    with fault_in("sampling", _keys(recipe.sampling)):
        stage.check_settings(stage.sampling)
    with fault_in("train.objective"):
        objective = build_objective(recipe)
        objective.check(stage)
    if recipe.data.missing == "mask":
        with fault_in("data.missing", errors=(ContractError, DataError)):
            check_masks(stage.contract)
            objective.check_leaves_out_missing()
    check_encoder(recipe, stage.contract)
    _check_pairs(recipe, stage.contract)
    if recipe.data.encoder is None:
        with fault_in("space", errors=(DataError,)):
            check_readable(stage.space)
    colour_range(recipe)
    data = recipe.data
    with fault_in("data.name_pattern", errors=(DataError,)):
        NamePattern(data.name_pattern)
    with fault_in("data", ("crop_px", "flip", "rotate90"), errors=(DataError, RecipeError)):
        augmentation = Augmentation(crop_px=data.crop_px, flip=data.flip, rotate90=data.rotate90)
        augmentation.check(stage.contract, encoded=encoded_kind(stage.contract))
        if isinstance(stage, DiffusionStage):
            check_crop_suits_network(recipe, stage)


def _check_pairs(recipe: StageRecipe, contract: Contract) -> None:
    """Check that pairs and the conditions of a recipe belong together.

    Raises:
        RecipeError: naming the key that is missing, or that pairs rule out.
    """
    if recipe.data.pairs is None:
        if contract.needs_partner:
            raise RecipeError(
                "condition.paired_image needs data.pairs: the folder or the shards of the inputs, "
                "or `beside` for NAME.low.* beside NAME.high.*."
            )
        return
    if contract.paired_condition is None:
        raise RecipeError(
            "data.pairs needs a condition that takes their inputs: condition.low_resolution for "
            "smaller ones, condition.paired_image for inputs of the same size."
        )
    if recipe.data.too_small == "enlarge":
        raise RecipeError("images of pairs are not resized; set data.too_small to skip or error.")
    if getattr(recipe.condition.low_resolution, "generated", None) is not None:
        raise RecipeError(
            "condition.low_resolution.generated makes low-resolution images, but those of "
            "data.pairs are files; leave it out."
        )


def check_crop_suits_network(recipe: StageRecipe, stage: DiffusionStage) -> None:
    """Check that the network takes crops of the recipe's size.

    Raises:
        RecipeError: naming the multiple that the size must be.
    """
    crop_px, multiple_px = recipe.data.crop_px, stage.network.size_multiple_px
    if crop_px is not None and crop_px % multiple_px:
        raise RecipeError(
            f"crop_px must be a multiple of {multiple_px} for this network, got {crop_px}."
        )


def _keys(section: Any) -> tuple[str, ...]:
    """The keys of a section, or of the dataclass of a condition's options."""
    names = type(section).model_fields if isinstance(section, Section) else vars(section)
    return tuple(names)


def _any_name(fields: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """A vocabulary for a check without data."""
    return {field: [f"any {field}"] for field in fields}
