"""Axes: sampling settings of stages, each with the values that a sweep tries.

The settings are those of `SamplingSettings` and the options of the samplers, so a setting that is
added there can be swept without a change here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cascade.errors import ContractError, nearest
from cascade.pipeline import CascadePipeline
from cascade.sampling.samplers.table import option_names, sampler_names
from cascade.sampling.settings import SETTINGS
from cascade.stage import Stage


@dataclass(frozen=True)
class Axis:
    """One setting and the values to try.

    Attributes:
        setting: a field of `SamplingSettings`, or an option of a sampler.
        stages: names of the stages that have it; they share each value.
        values: the values to try, in order.
        name: name of the axis in tables, such as `upsampler.steps`.
    """

    setting: str
    stages: tuple[str, ...]
    values: tuple[Any, ...]
    name: str


@dataclass(frozen=True)
class Requirement:
    """A setting that only has an effect together with certain values of another one.

    Attributes:
        other: name of the other setting.
        is_met: whether this setting has an effect with a value of the other one.
        example: a value of the other setting that meets the requirement, for error messages.
    """

    other: str
    is_met: Callable[[Any], bool]
    example: str


REQUIREMENTS = {
    "percentile": Requirement("threshold", lambda value: value == "dynamic", "dynamic"),
    "threshold_cap": Requirement("threshold", lambda value: value == "dynamic", "dynamic"),
    "guidance_interval": Requirement("guidance", lambda value: value != 1, "2"),
}


def read_axes(texts: Sequence[str], pipeline: CascadePipeline) -> list[Axis]:
    """Read axes in the notation of the command line.

    Args:
        texts: one per axis, such as `steps=10,20,50`, `upsampler.eta=0,0.5` or
            `base.guidance_interval=[0.3,3],[0,5]`. Without a stage, all stages that have the
            setting share each value.
        pipeline: the pipeline whose settings are swept.

    Returns:
        The axes, in the order of the stages.

    Raises:
        ContractError: for an unknown stage or setting, a value that does not fit it, a setting
            without effect, or a setting that appears twice.
    """
    stages = dict(pipeline.stages.items())
    entries = [_Entry.parse(text, next(iter(stages))) for text in texts]
    samplers = {name: _swept_values("sampler", name, stages[name], entries) for name in stages}
    axes = [_axis(entry, stages, samplers) for entry in entries]
    _check_no_repeats(axes)
    _check_requirements(axes, stages, entries)
    return sorted(axes, key=lambda axis: pipeline.stages.names.index(axis.stages[0]))


@dataclass(frozen=True)
class _Entry:
    """One argument, with its values but before its names are checked."""

    stage: str  # empty for all
    setting: str
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, text: str, example_stage: str) -> _Entry:
        name, equals, listed = text.partition("=")
        if not equals or not listed.strip():
            raise ContractError(
                f"{text!r} must be a setting and its values, such as steps=10,20,50 or "
                f"{example_stage}.steps=10,20,50."
            )
        stage, dot, setting = name.strip().rpartition(".")
        if dot and not stage:
            raise ContractError(f"{text!r} names no stage before the dot; leave the dot out.")
        _check_setting(setting)
        return cls(stage, setting, _read_values(setting, listed))

    @property
    def name(self) -> str:
        return f"{self.stage}.{self.setting}" if self.stage else self.setting

    def covers(self, stage: str) -> bool:
        return self.stage in (stage, "")


def _check_setting(setting: str) -> None:
    """Check that there is such a setting, or such an option of any sampler."""
    options = [option for sampler in sampler_names() for option in option_names(sampler)]
    names = list(dict.fromkeys([*SETTINGS, *options]))
    if setting not in names:
        raise ContractError(f"unknown sampling setting {setting!r}: {nearest(setting, names)}")


def _read_values(setting: str, listed: str) -> tuple[Any, ...]:
    """The values between commas; brackets and braces hold values of several parts."""
    from yaml import YAMLError, safe_load

    try:
        values = safe_load(f"[{listed}]")
    except YAMLError as error:
        raise ContractError(f"{setting}: {listed!r} is not a list of values.") from error
    unique = []
    for value in (_read_value(setting, each) for each in values):
        if value not in unique:
            unique.append(value)
    return tuple(unique)


def _read_value(setting: str, value: Any) -> Any:
    """Convert a value to the declared type of its setting."""
    from pydantic import ValidationError

    from cascade.recipe.section import boolean_faults
    from cascade.recipe.sections import sampling_section

    model, values = sampling_section(), {setting: value}
    for fault in boolean_faults(values, model):
        raise ContractError(f"{setting}: {fault['msg']}, got {value!r}.")
    try:
        typed = getattr(model.model_validate(values), setting)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise ContractError(f"{setting}: {reason}, got {value!r}.") from error
    if typed is None:
        raise ContractError(f"{setting} needs a value, got {value!r}.")
    return typed


def _swept_values(
    setting: str, name: str, stage: Stage, entries: Sequence[_Entry]
) -> tuple[Any, ...]:
    """The values that a setting of one stage takes during a sweep."""
    for entry in entries:
        if entry.setting == setting and entry.covers(name):
            return entry.values
    return (stage.sampling.value(setting),)


def _axis(
    entry: _Entry, stages: Mapping[str, Stage], samplers: Mapping[str, Sequence[str]]
) -> Axis:
    """The axis of an entry, with the stages on which its setting has an effect."""
    if entry.stage and entry.stage not in stages:
        raise ContractError(
            f"no stage {entry.stage!r} in this pipeline: {nearest(entry.stage, stages)}"
        )
    names = tuple(
        name
        for name, stage in stages.items()
        if entry.covers(name) and _has_use(entry.setting, stage, samplers[name])
    )
    if not names:
        owner = (
            f"stage {entry.stage!r} has no" if entry.stage else "no stage of this pipeline has a"
        )
        raise ContractError(f"{entry.setting}: {owner} use for it; leave it out.")
    return Axis(entry.setting, names, entry.values, entry.name)


def _has_use(setting: str, stage: Stage, samplers: Sequence[str]) -> bool:
    """Whether a setting, or an option of one of these samplers, has an effect on a stage."""
    contract = stage.contract
    if not stage.has_settings:
        return False
    if setting == "augmentation_level":
        return any(each.augmentation_range is not None for each in contract.conditions)
    if setting == "denoise":
        return contract.has_dial
    if setting == "keep_colours":
        return contract.has_colours
    if setting == "temperature":
        return contract.needs_image
    if setting in ("guidance", "guidance_interval"):
        return bool(contract.droppable)
    return setting in SETTINGS or any(setting in option_names(each) for each in samplers)


def _check_no_repeats(axes: Sequence[Axis]) -> None:
    places = [(stage, axis.setting) for axis in axes for stage in axis.stages]
    repeated = next((place for place in places if places.count(place) > 1), None)
    if repeated is not None:
        stage, setting = repeated
        raise ContractError(f"{setting} of stage {stage!r} is swept twice; give it once.")


def _check_requirements(
    axes: Sequence[Axis], stages: Mapping[str, Stage], entries: Sequence[_Entry]
) -> None:
    """Refuse a setting that has no effect in any combination."""
    for axis in axes:
        if axis.setting not in REQUIREMENTS:
            continue
        requirement = REQUIREMENTS[axis.setting]
        for name in axis.stages:
            values = _swept_values(requirement.other, name, stages[name], entries)
            if not any(requirement.is_met(value) for value in values):
                raise ContractError(
                    f"{axis.setting} has no effect on stage {name!r} with {requirement.other} "
                    f"{values[0]}; give {requirement.other}={requirement.example} too, or leave "
                    "it out."
                )
