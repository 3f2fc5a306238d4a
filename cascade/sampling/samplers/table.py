"""The samplers by name. One of your own is a final subclass of `Sampler` and an entry here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError, nearest
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.samplers.ddpm import DDPM
from cascade.sampling.samplers.diffusers_sampler import DiffusersOptions, DiffusersSampler
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.thresholding import Threshold, Thresholding

SAMPLERS: dict[str, type[Sampler]] = {"ddim": DDIM, "ddpm": DDPM}
DIFFUSERS_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
}


def sampler_names() -> list[str]:
    """All names, our own first; the class name of any scheduler of diffusers works too."""
    return [*SAMPLERS, *DIFFUSERS_SAMPLERS]


def option_names(name: str) -> list[str]:
    """The options of a sampler.

    Raises:
        ContractError: for an unknown sampler.
    """
    return list(default_options(name))


def default_options(name: str) -> dict[str, Any]:
    """The default value of each option of a sampler.

    Raises:
        ContractError: for an unknown sampler.
    """
    if name not in SAMPLERS:
        _scheduler(name)
    defaults = SAMPLERS[name].Options() if name in SAMPLERS else DiffusersOptions()
    return {field.name: getattr(defaults, field.name) for field in fields(defaults)}


def make_sampler(
    name: str,
    process: NoiseProcess,
    steps: int,
    *,
    threshold: Threshold = "static",
    percentile: float = 0.995,
    **options: Any,
) -> Sampler:
    """Build a sampler by name.

    Args:
        name: one of `sampler_names()`, or the class name of any scheduler of diffusers.
        process: schedule and prediction of the stage.
        steps: number of timesteps to visit, from 1 to T.
        threshold: how the predicted image is kept in range.
        percentile: of the dynamic threshold.
        options: of the sampler, such as `eta` of ddim.

    Raises:
        ContractError: for an unknown name, an option that the sampler does not have, or a number
            of steps out of range.
    """
    process.schedule.sampling_timesteps(steps)
    known = option_names(name)
    for option in options:
        if option not in known:
            raise ContractError(f"sampler {name!r} has no option {option!r}.")
    thresholding = Thresholding(threshold, percentile)
    if name in SAMPLERS:
        kind = SAMPLERS[name]
        return kind(process, steps, thresholding, kind.Options(**options))
    scheduler, config = _scheduler(name)
    config = DiffusersOptions(config={**config, **options.get("config", {})})
    return DiffusersSampler(process, steps, thresholding, config, scheduler=scheduler)


def _scheduler(name: str) -> tuple[str, dict[str, Any]]:
    """Class and configuration of a scheduler of diffusers."""
    if name in DIFFUSERS_SAMPLERS:
        return DIFFUSERS_SAMPLERS[name]
    import diffusers

    if name.endswith("Scheduler") and hasattr(diffusers, name):
        return name, {}
    raise ContractError(f"unknown sampler {name!r}: {nearest(name, sampler_names())}")
