"""Autoencoder stages of recipes, and the frozen encoders of the stages that make latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cascade.autoencoder_stage import AutoencoderStage
from cascade.building.trained import find_stage
from cascade.contract import Contract
from cascade.data.embedded_images import embed_images
from cascade.data.encoded_images import EncodedImages
from cascade.data.remote import default_cache
from cascade.data.source import ImageSource
from cascade.data.training_images import TrainingImages
from cascade.errors import ContractError, RecipeError, WeightsError
from cascade.networks.autoencoder import AUTOENCODERS
from cascade.recipe.faults import fault_in
from cascade.recipe.sections import DiffusionSection, StageRecipe
from cascade.saving.components import read_json
from cascade.saving.stage_folder import stage_in
from cascade.space import Space
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training.objectives.autoencoding import Autoencoding

ENCODER = "data.encoder"


def is_autoencoder(recipe: StageRecipe) -> bool:
    """Whether a recipe describes an autoencoder stage."""
    return recipe.network.kind in AUTOENCODERS


def build_autoencoder_stage(recipe: StageRecipe, space: Space) -> AutoencoderStage:
    """Make the autoencoder stage that a recipe describes, with new weights.

    Raises:
        RecipeError: if the recipe has values that only other stages have.
        ContractError: if the parts do not fit together.
    """
    kept = {
        "condition": not any(value is not None for _, value in recipe.condition),
        "diffusion": recipe.diffusion == DiffusionSection(),
        "student": recipe.student is None,
        "sampling": not any(value is not None for _, value in recipe.sampling),
    }
    for section, is_empty in kept.items():
        with fault_in(section):
            if not is_empty:
                raise RecipeError(f"an autoencoder stage has no {section}; leave the section out.")
    return AutoencoderStage.build(
        space,
        network=recipe.network.kind,
        network_options=recipe.network.model_dump(exclude={"kind"}),
    )


def build_autoencoding(recipe: StageRecipe) -> Autoencoding:
    """Make the objective of an autoencoder's recipe."""
    section = recipe.autoencoding
    return Autoencoding() if section is None else Autoencoding(**section.model_dump())


# ---- for stages that make latents ---------------------------------------------------------------


def check_encoder(recipe: StageRecipe, contract: Contract) -> None:
    """Check that a recipe names an encoder exactly if its stage makes latents.

    Raises:
        RecipeError: naming the key.
    """
    makes_latents = contract.space.kind == "latents"
    with fault_in(ENCODER):
        if makes_latents and recipe.data.encoder is None:
            raise RecipeError(
                "the stage makes latents; name the stage, or the run of it, whose encoder makes "
                "latents of the training images."
            )
        _check_kind(recipe)
    if makes_latents and contract.takes_image:
        with fault_in("condition"):
            raise RecipeError("a stage that makes latents takes no image; leave the image out.")


def load_encoder(recipe: StageRecipe) -> AutoencoderStage | None:
    """Load the encoder of latents that a recipe names; None if it names none.

    It is a stage, the run that trained it, or a folder that diffusers wrote, such as a VAE's.

    Raises:
        RecipeError: if there is none, or it is no encoder for the stage.
    """
    if recipe.data.encoder is None:
        return None
    with fault_in(ENCODER, errors=(ContractError, RecipeError, WeightsError)):
        _check_kind(recipe)
        if recipe.space.kind == "embeddings":
            return None
        stage = _load(recipe.data.encoder, recipe)
        if not isinstance(stage, AutoencoderStage):
            raise RecipeError(f"{recipe.data.encoder} is a {stage.kind} stage, not an autoencoder.")
        if not stage.latents.encoder:
            raise RecipeError(
                f"the latents of {recipe.data.encoder} were never scaled; train it to the end."
            )
        _check_latents(Space(**recipe.space.model_dump()), stage.latent_space)
    return stage.requires_grad_(False)


def _check_kind(recipe: StageRecipe) -> None:
    kind = recipe.space.kind
    if recipe.data.encoder is not None and kind == "pixels":
        raise RecipeError(
            "an encoder is for stages that make latents or embeddings, but space.kind is pixels; "
            "leave it out."
        )


def _load(name: str, recipe: StageRecipe) -> Stage:
    folder = Path(name)
    if stage_in(folder) is not None or not (folder / "config.json").is_file():
        return load_stage(find_stage(name))
    levels = len(read_json(folder / "config.json").get("block_out_channels", [1]))
    height, width = Space(**recipe.space.model_dump()).size
    factor = 2 ** (levels - 1)
    return AutoencoderStage.from_diffusers(folder, Space(size_px=(height * factor, width * factor)))


def _check_latents(space: Space, latents: Space) -> None:
    """Check that a stage makes the latents of an encoder.

    Raises:
        RecipeError: naming the number that disagrees.
    """
    for name in (each.name for each in fields(Space) if not each.name.startswith("encoder")):
        ours, theirs = getattr(space, name), getattr(latents, name)
        if ours != theirs:
            raise RecipeError(
                f"the encoder gives latents of {name} {theirs}, but the stage's space has {ours}."
            )


def encoded_space(space: Space, encoder: AutoencoderStage | None) -> Space:
    """The space of a stage, with the facts about its encoder."""
    if encoder is None:
        return space
    latents = encoder.latent_space
    return replace(
        space,
        encoder=latents.encoder,
        encoder_shift=latents.encoder_shift,
        encoder_scale=latents.encoder_scale,
    )


def encode_images(
    stage: Stage,
    encoder: AutoencoderStage | None,
    source: ImageSource,
    options: Mapping[str, Any],
    cache_dir: str | None,
    device: torch.device,
) -> dict[str, Any]:
    """Encode the training images of a stage, or find them in the cache.

    Args:
        stage: the stage in training, which makes latents or embeddings, or is conditioned on them.
        encoder: the encoder of latents; None for other stages.
        source: the images.
        options: further arguments of `TrainingImages`.
        cache_dir: folder of the caches; None for the user's own.
        device: where to encode.

    Returns:
        Arguments of `TrainingImages` with what the encoders made; empty if the stage has none.

    Raises:
        CascadeError: if an encoder of embeddings cannot be found, or does not take the images.
        DataError: if images cannot be used.
        OutputError: if the cache cannot be written.
    """
    cache = (default_cache().parent if cache_dir is None else Path(cache_dir)) / "encoded"
    augmentation = ("flip", "crop_px", "rotate90", "cache_mib")
    reading = {name: value for name, value in options.items() if name not in augmentation}
    result: dict[str, Any] = {}
    if encoder is not None:
        result["encoded"] = _encode_latents(encoder.to(device).eval(), source, reading, cache)
    del reading["too_small"]  # an encoder of embeddings takes any size
    embed = partial(embed_images, source, cache=cache, device=device, **reading)
    if stage.space.kind == "embeddings" and stage.space.encoder_name:
        result["encoded"] = embed(stage.space)
    pictures = stage.space if stage.space.kind == "pixels" else None
    spaces = {each.name: each.encoded_space for each in stage.conditions}
    result["embedded"] = {
        name: embed(space, pictures=pictures) for name, space in spaces.items() if space is not None
    }
    return result


def _encode_latents(
    encoder: AutoencoderStage, source: ImageSource, reading: Mapping[str, Any], cache: Path
) -> EncodedImages:
    return EncodedImages(
        TrainingImages(source, Contract(encoder.space), flip=(), cache_mib=0, **reading),
        encoder.latent_space,
        partial(encoder.encode, precision="fp32"),
        cache,
        decode=partial(encoder.decode, precision="auto"),
    )
