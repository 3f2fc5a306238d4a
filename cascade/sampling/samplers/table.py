"""The samplers by name. To add one, write a final subclass of `Sampler` and enter it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError, nearest
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.samplers.ddpm import DDPM
from cascade.sampling.samplers.diffusers_sampler import DiffusersOptions, DiffusersSampler
from cascade.sampling.samplers.euler_maruyama import EulerMaruyama
from cascade.sampling.samplers.langevin import Langevin
from cascade.sampling.samplers.ode import ODE
from cascade.sampling.samplers.predictor_corrector import PredictorCorrector
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.thresholding import Threshold, Thresholding

SAMPLERS: dict[str, type[Sampler]] = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "ode": ODE,
    "heun": ODE,  # the usual name; diffusers' own overshoots where the first sigma is large
    "euler-maruyama": EulerMaruyama,
    "predictor-corrector": PredictorCorrector,
    "langevin": Langevin,
}
DIFFUSERS_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
}


def sampler_names() -> list[str]:
    """All names, our own first; the class name of any scheduler of diffusers works too."""
    return [*SAMPLERS, *DIFFUSERS_SAMPLERS]


def option_names(name: str | type[Sampler]) -> list[str]:
    """The options of a sampler.

    Args:
        name: its name, or the class of a sampler that is not in the table.

    Raises:
        ContractError: for an unknown sampler.
    """
    return list(default_options(name))


def default_options(name: str | type[Sampler]) -> dict[str, Any]:
    """The default value of each option of a sampler.

    Raises:
        ContractError: for an unknown sampler.
    """
    kind = _kind(name)
    if kind is None:
        _scheduler(str(name))
    defaults = DiffusersOptions() if kind is None else kind.Options()
    return {field.name: getattr(defaults, field.name) for field in fields(defaults)}


def sampler_text(name: str | type[Sampler]) -> str:
    """The name of a sampler for records: that of its class if it is not in the table."""
    return name if isinstance(name, str) else name.__name__


def make_sampler(
    name: str | type[Sampler],
    process: NoiseProcess,
    steps: int,
    *,
    threshold: Threshold = "static",
    percentile: float = 0.995,
    threshold_cap: float | None = None,
    **options: Any,
) -> Sampler:
    """Make a sampler by name.

    Args:
        name: one of `sampler_names()`, the class name of any scheduler of diffusers, or the class
            of a sampler that is not in the table.
        process: noise schedule and prediction of the stage.
        steps: number of timesteps to visit, from 1 to T.
        threshold: how predicted images are kept in range: `none`, `static` or `dynamic`.
        percentile: percentile of the dynamic threshold, in (0, 1].
        threshold_cap: largest number at which the dynamic threshold clips; None for any.
        options: options of the sampler, such as `eta` of ddim.

    Raises:
        ContractError: for an unknown name, an option that the sampler does not have, or a number
            of steps out of range.
    """
    process.schedule.sampling_timesteps(steps)
    made = make_options(name, options)
    thresholding = Thresholding(threshold, percentile, threshold_cap)
    kind = _kind(name)
    if kind is not None:
        return kind(process, steps, thresholding, made)
    scheduler, config = _scheduler(str(name))
    merged = DiffusersOptions(config={**config, **made.config})
    return DiffusersSampler(process, steps, thresholding, merged, scheduler=scheduler)


def make_options(name: str | type[Sampler], options: Mapping[str, Any]) -> Any:
    """Make the options of a sampler, which checks them.

    Args:
        name: its name, or the class of a sampler that is not in the table.
        options: values by name; those that are missing keep their defaults.

    Raises:
        ContractError: for an unknown sampler, an option that it does not have, or a wrong value.
    """
    names = option_names(name)
    for option in options:
        if option not in names:
            unknown = f"sampler {sampler_text(name)!r} has no option {option!r}."
            raise ContractError(option_of_others(name, option) or unknown)
    kind = _kind(name)
    if kind is None:
        return DiffusersOptions(**options)
    _check_numbers(kind.Options, options)
    return kind.Options(**options)


def option_of_others(name: str | type[Sampler], option: str) -> str:
    """The error message for an option that other samplers have; empty if none has it."""
    owners = [each for each in sampler_names() if option in option_names(each)]
    if set(owners) == set(DIFFUSERS_SAMPLERS):
        return (
            f"{option!r} is an option of diffusers' schedulers, and {_described(name)}; leave it "
            "out, or use a scheduler, such as dpmsolver++ or HeunDiscreteScheduler."
        )
    listed = f"{option!r} is an option of {', '.join(owners)}, not of {sampler_text(name)}."
    return listed if owners else ""


def _described(name: str | type[Sampler]) -> str:
    """Which sampler that is no scheduler of diffusers a name stands for."""
    kind, text = _kind(name), sampler_text(name)
    own = next((each for each, known in SAMPLERS.items() if known is kind), None)
    if own is None:
        return f"{text} is none"
    return f"{text} is Cascade's own sampler" + ("" if own == text else f" {own}")


def _kind(name: str | type[Sampler]) -> type[Sampler] | None:
    """The class of a sampler; None for a scheduler of diffusers."""
    return SAMPLERS.get(name) if isinstance(name, str) else name


def _check_numbers(options_class: type, options: Mapping[str, Any]) -> None:
    """Check that options that are numbers got numbers, so that samplers check ranges only."""
    types = get_type_hints(options_class)
    for name, value in options.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if types[name] in (int, float) and not is_number:
            raise ContractError(f"{name} must be a number, got {value!r}.")


def _scheduler(name: str) -> tuple[str, dict[str, Any]]:
    """Class and configuration of a scheduler of diffusers."""
    if name in DIFFUSERS_SAMPLERS:
        return DIFFUSERS_SAMPLERS[name]
    import diffusers

    if name.endswith("Scheduler") and hasattr(diffusers, name):
        return name, {}
    raise ContractError(f"unknown sampler {name!r}: {nearest(name, sampler_names())}")
