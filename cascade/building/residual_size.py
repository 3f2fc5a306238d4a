"""Measures how far training images are from their conditioning image, to set `residual_std`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cascade.building.spaces import reading_options, space_of
from cascade.conditioning.assembling import counted_values
from cascade.conditioning.condition import Condition
from cascade.contract import Contract
from cascade.data.batches import collate
from cascade.data.source import ImageSource
from cascade.data.training_images import TrainingImages
from cascade.diffusion.noise import SeededNoise
from cascade.recipe.sections import StageRecipe

FAR_OFF = 2  # factor between the stated and the measured number from which on a warning is due


def measured_residual(
    recipe: StageRecipe, source: ImageSource, conditions: Sequence[Condition], most_images: int
) -> tuple[float, int] | None:
    """Measure the root mean square of x0 - base over the first crops of a run.

    Each crop gets its conditioning image as in training, with degradation and added noise. Only
    values that the loss counts are measured.

    Args:
        recipe: the recipe of the stage, with `diffusion.residual_std`.
        source: its training images.
        conditions: the conditions of its stage.
        most_images: number of crops to measure, unless there are fewer images.

    Returns:
        The root mean square, in [-1, 1] of the range, and the number of crops. None if it cannot be
        measured before training: for latents, and for bands whose range training measures.

    Raises:
        DataError: if images cannot be used.
        ContractError: if no condition has an image that resembles the result.
    """
    if recipe.space.kind != "pixels" or recipe.data.percentiles is not None:
        return None
    space = space_of(recipe)
    base = Contract(space, tuple(conditions)).residual_base()
    contract, options = Contract(space, (base,)), reading_options(recipe)
    options["cache_mib"] = 0
    images = TrainingImages(source, contract, seed=recipe.train.seed, **options)
    count = min(most_images, len(source))
    squares = values = 0.0
    for position in range(count):  # one by one, since whole images may be large
        batch = collate([images[position]])
        noise = SeededNoise(batch.seeds, "train").fork(base.name)
        signals = base.of_batch(batch, space, noise)
        guess = base.first_guess(signals.enlarged().channels[base.name].image)
        counted = counted_values([base], batch, signals)
        weight = torch.ones_like(guess) if counted is None else counted.expand_as(guess)
        squares += float((weight * (batch.images - guess) ** 2).sum())
        values += float(weight.sum())
    return (squares / values) ** 0.5 if values else 0.0, count


def residual_text(stated: float, measured: tuple[float, int] | None) -> str:
    """Say what is stated and what was measured."""
    if measured is None:
        return f"{stated:g}; not measured, since latents or range are known in training only"
    value, count = measured
    return f"{stated:g}; measured on {count} training images: {value:.2g}"


def residual_warnings(recipe: StageRecipe, measured: tuple[float, int] | None) -> list[str]:
    """Warn if `residual_std` is far from what was measured.

    A run that starts from a trained stage keeps the number of that stage.
    """
    stated = recipe.diffusion.residual_std
    if measured is None or stated is None or recipe.train.init_from is not None:
        return []
    value, count = measured
    if value == 0 or 1 / FAR_OFF <= stated / value <= FAR_OFF:
        return []
    return [
        f"diffusion.residual_std is {stated:g}, but the root mean square of result minus "
        f"conditioning image is {value:.2g} on {count} training images; set "
        f"diffusion.residual_std={value:.2g}."
    ]
