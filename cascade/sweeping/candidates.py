"""Candidates: the combinations of settings that a sweep compares."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.sampling.samplers.table import option_names
from cascade.sampling.settings import SETTINGS, SamplingSettings
from cascade.stage import Stage
from cascade.sweeping.axes import Axis

MOST_CANDIDATES = 2000
NO_VALUE = "–"  # for an option that the sampler does not have, or an interval that is not set


@dataclass(frozen=True)
class Candidate:
    """One combination of settings.

    Attributes:
        settings: sampling settings of each stage by its name, in the order of the stages.
        values: value of each axis by its name: a text with all values if stages that share the axis
            differ, None if no stage has a value.
    """

    settings: Mapping[str, SamplingSettings]
    values: Mapping[str, Any]

    def text(self) -> str:
        """The values in a few words: `base.guidance 2, upsampler.steps 20`."""
        return ", ".join(f"{name} {value_text(value)}" for name, value in self.values.items())


def value_text(value: Any) -> str:
    """A value of a setting, without needless digits."""
    if value is None:
        return NO_VALUE
    if isinstance(value, tuple | list):
        return f"[{', '.join(value_text(each) for each in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def combine(axes: Sequence[Axis], pipeline: CascadePipeline) -> list[Candidate]:
    """All combinations and the current settings, ordered so that early stages rarely change.

    An option of a sampler is left out of combinations with other samplers, which are then listed
    once.

    Args:
        axes: at least one axis, in the order of the stages.
        pipeline: the pipeline with the current settings.

    Raises:
        ContractError: if there are too many combinations, or one does not fit a stage.
    """
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_CANDIDATES:
        raise ContractError(
            f"{count} combinations are more than {MOST_CANDIDATES}; sweep fewer values at a time."
        )
    stages = dict(pipeline.stages.items())
    changed = [
        _changed(axes, list(zip(axes, values, strict=True)), stages)
        for values in itertools.product(*(axis.values for axis in axes))
    ]
    current = _current(axes, stages)
    is_among_them = any(each.settings == current.settings for each in changed)
    return _unique(changed if is_among_them else [current, *changed])


def one_at_a_time(
    axes: Sequence[Axis], pipeline: CascadePipeline, *, together: Sequence[str] = ()
) -> list[Candidate]:
    """The current settings, and those that differ from them in one axis.

    Changes to the last stages come first, so that these can reuse the images of earlier stages.

    Args:
        axes: the axes, in the order of the stages.
        pipeline: the pipeline with the current settings.
        together: settings that change at once, in all combinations of a stage's values.

    Raises:
        ContractError: if a change does not fit a stage.
    """
    stages = dict(pipeline.stages.items())
    changed = [
        _changed(axes, list(zip(group, values, strict=True)), stages)
        for group in reversed(_groups(axes, together))
        for values in itertools.product(*(axis.values for axis in group))
    ]
    return _unique([_current(axes, stages), *changed])


def _groups(axes: Sequence[Axis], together: Sequence[str]) -> list[list[Axis]]:
    """The axes that change at once: those of a stage with these settings, and each other alone."""
    groups: dict[tuple[str, ...], list[Axis]] = {}
    for axis in axes:
        key = axis.stages if axis.setting in together else (axis.name,)
        groups.setdefault(key, []).append(axis)
    return list(groups.values())


def _current(axes: Sequence[Axis], stages: Mapping[str, Stage]) -> Candidate:
    return _candidate(axes, {name: stage.sampling for name, stage in stages.items()})


def _changed(
    axes: Sequence[Axis], values: Sequence[tuple[Axis, Any]], stages: Mapping[str, Stage]
) -> Candidate:
    """The candidate with the current settings except for new values of some axes."""
    settings = {}
    for name, stage in stages.items():
        changes = {axis.setting: value for axis, value in values if name in axis.stages}
        settings[name] = _with_changes(stage.sampling, changes)
        stage.check_settings(settings[name])
    return _candidate(axes, settings)


def _with_changes(settings: SamplingSettings, changes: Mapping[str, Any]) -> SamplingSettings:
    """Change some values of settings.

    Values that stay the same are not set explicitly, so that equal settings compare as equal.
    """
    settings = settings.changed(sampler=changes.get("sampler"))
    names = [*SETTINGS, *option_names(settings.sampler)]
    new = {
        name: value
        for name, value in changes.items()
        if name in names and settings.value(name) != value
    }
    return settings.changed(**new)


def _candidate(axes: Sequence[Axis], settings: Mapping[str, SamplingSettings]) -> Candidate:
    return Candidate(settings, {axis.name: _shared_value(axis, settings) for axis in axes})


def _shared_value(axis: Axis, settings: Mapping[str, SamplingSettings]) -> Any:
    """The value of an axis in the stages that have one."""
    values = [settings[name].value(axis.setting) for name in axis.stages]
    values = [value for value in values if value is not None]
    if not values or all(value == values[0] for value in values):
        return values[0] if values else None
    return " / ".join(value_text(value) for value in values)


def _unique(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Keep the first of each combination of settings."""
    by_settings: dict[str, Candidate] = {}
    for candidate in candidates:
        plain = {name: settings.to_dict() for name, settings in candidate.settings.items()}
        by_settings.setdefault(json.dumps(plain), candidate)
    return list(by_settings.values())
