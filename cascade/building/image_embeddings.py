"""Stages of recipes that make embeddings of images; a frozen encoder makes those they train on."""

from __future__ import annotations

from dataclasses import replace

from cascade.errors import ContractError
from cascade.recipe.sections import StageRecipe
from cascade.space import Space
from cascade.vision.encoders import find_vision_facts


def is_embedding(recipe: StageRecipe) -> bool:
    """Whether the stage of a recipe makes embeddings of images."""
    return recipe.space.kind == "embeddings"


def embedding_space(recipe: StageRecipe) -> Space:
    """Make the space of a recipe whose stage makes embeddings; the encoder is found and hashed.

    Raises:
        CascadeError: if the encoder cannot be found, or makes other embeddings.
    """
    space, name = Space(**recipe.space.model_dump()), recipe.data.encoder
    if name is None:
        return space
    facts = find_vision_facts(name)
    for field in ("size", "channels"):
        ours, theirs = getattr(space, field), getattr(facts.space, field)
        if ours != theirs:
            raise ContractError(f"{field} must be {theirs} for the encoder {name}, got {ours}.")
    return replace(space, encoder=facts.sha256, encoder_name=facts.name)
