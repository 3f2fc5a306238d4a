"""The learning rate as a function of the images seen; it has no state that could be lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch.optim import Optimizer

from cascade.training.settings import TrainingSettings


def set_learning_rate(
    optimisers: list[Optimizer], images_seen: int, settings: TrainingSettings
) -> float:
    """Set the learning rates for the next step.

    Args:
        optimisers: optimisers whose groups hold their full rate as `full_lr`; changed in place.
        images_seen: number of images seen before the step.
        settings: settings of the run.

    Returns:
        The factor of the full rate, from 0 to 1.
    """
    factor = learning_rate_factor(images_seen, settings)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * factor
    return factor


def learning_rate_factor(images_seen: int, settings: TrainingSettings) -> float:
    """The factor of the full learning rate: a linear warm-up times the schedule.

    Args:
        images_seen: number of images seen before the step.
        settings: settings of the run.

    Returns:
        A factor from 0 to 1; above 0 for the first step.
    """
    after_step = images_seen + settings.batch_size
    warm_up = min(1.0, after_step / max(settings.warmup_images, 1))
    if settings.schedule == "warmup_stable_decay":
        return warm_up * _final_cosine(images_seen, settings)
    total_steps = math.ceil(settings.images / settings.batch_size)
    factor_at = _diffusers_schedule(settings.schedule, total_steps)
    return warm_up * factor_at(images_seen // settings.batch_size)


def _final_cosine(images_seen: int, settings: TrainingSettings) -> float:
    """A plateau, followed by a cosine to zero over the last `decay_fraction` of the run."""
    decay_images = settings.decay_fraction * settings.images
    images_left = settings.images - images_seen
    if decay_images == 0 or images_left >= decay_images:
        return 1.0
    return 0.5 * (1 - math.cos(math.pi * max(images_left, 0) / decay_images))


@lru_cache(maxsize=4)
def _diffusers_schedule(name: str, total_steps: int) -> Callable[[int], float]:
    """A schedule of diffusers as a function of the step."""
    from diffusers.optimization import get_scheduler

    any_optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(
        name, any_optimiser, num_warmup_steps=0, num_training_steps=total_steps
    )
    return scheduler.lr_lambdas[0]
