"""Samplers and schedulers as objects or classes, where a setting holds a name and options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cascade.arguments import shown
from cascade.errors import ContractError
from cascade.sampling.samplers.diffusers_sampler import OURS, DiffusersSampler
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.samplers.table import SAMPLERS

SamplerLike = str | type[Sampler]


def split_sampler(sampler: Any) -> tuple[SamplerLike, dict[str, Any]]:
    """Split a sampler into what settings hold: its name and the settings that it stands for.

    Args:
        sampler: a name; a `Sampler` or a scheduler of diffusers, as an object or a class. The noise
            schedule and the predicted quantity are always those of the stage.

    Returns:
        The name, or the class of a sampler that is not in the table; and the settings and options
        that an object holds by name.

    Raises:
        ContractError: if it is none of these, or a scheduler has values that follow from the stage.
    """
    if isinstance(sampler, str):
        return sampler, {}
    if isinstance(sampler, DiffusersSampler):
        name = _scheduler_name(type(sampler.scheduler))
        return name, {**_walk(sampler), "config": dict(sampler.options.config)}
    if isinstance(sampler, Sampler):
        options = {
            each.name: getattr(sampler.options, each.name) for each in fields(sampler.Options)
        }
        return _name(type(sampler)), {**_walk(sampler), **options}
    if isinstance(sampler, type) and issubclass(sampler, Sampler):
        return _name(sampler), {}
    return _split_scheduler(sampler)


def _walk(sampler: Sampler) -> dict[str, Any]:
    thresholding = sampler.thresholding
    return {
        "steps": sampler.steps,
        "threshold": thresholding.kind,
        "percentile": thresholding.percentile,
        "threshold_cap": thresholding.cap,
    }


def _name(kind: type[Sampler]) -> SamplerLike:
    return next((name for name, each in SAMPLERS.items() if each is kind), kind)


def _split_scheduler(scheduler: Any) -> tuple[str, dict[str, Any]]:
    """Name of a scheduler's class, and what its configuration changes."""
    from diffusers import SchedulerMixin

    if isinstance(scheduler, type) and issubclass(scheduler, SchedulerMixin):
        return _scheduler_name(scheduler), {}
    if not isinstance(scheduler, SchedulerMixin):
        raise ContractError(
            "sampler must be a name such as 'ddim', a Sampler or a scheduler of diffusers, got "
            f"{shown(scheduler)}."
        )
    config = _changes(type(scheduler), dict(getattr(scheduler, "config", {})))
    return _scheduler_name(type(scheduler)), {"config": config} if config else {}


def _scheduler_name(scheduler_class: type) -> str:
    import diffusers

    name = scheduler_class.__name__
    if getattr(diffusers, name, None) is not scheduler_class:
        raise ContractError(
            f"scheduler {name} is not a class of diffusers; make it a Sampler, as "
            "tests/examples/test_a_sampler_of_your_own.py does."
        )
    return name


def _changes(scheduler_class: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ from the defaults of the class.

    Raises:
        ContractError: for a value that follows from the stage.
    """
    parameters = inspect.signature(scheduler_class.__init__).parameters
    changes = {
        name: config[name]
        for name, each in parameters.items()
        if name in config and config[name] != each.default
    }
    for name in changes:
        if name in OURS:
            raise ContractError(
                f"{name!r} of {scheduler_class.__name__} follows from the stage; make the "
                "scheduler without it."
            )
    return changes
