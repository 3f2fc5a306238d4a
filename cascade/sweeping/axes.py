"""What a sweep goes over: settings of stages with the values to try, and all their combinations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cascade.errors import ContractError, nearest
from cascade.pipeline import CascadePipeline
from cascade.restoration.tiled_sampling import tiled_sampler
from cascade.sampling.settings import SamplingSettings
from cascade.stage import Stage

MOST_CANDIDATES = 2000
SETTINGS = tuple(field.name for field in fields(SamplingSettings))
WORDS = ("sampler", "threshold")  # the settings that are names
GUIDANCE = (1.0, 1.5, 2.0, 3.0, 5.0)
TEMPERATURES = (0.4, 0.6, 0.8, 1.0)
LEVEL_SHARES = (0.0, 0.25, 0.5, 1.0)  # of the range of augmentation that a stage was trained on
STEP_FACTORS = (0.5, 1.0, 2.0)  # of the steps that a stage takes now
USUAL_SAMPLERS = ("ddim", "ddpm", "dpmsolver++")


@dataclass(frozen=True)
class Axis:
    """One setting and the values to try.

    Attributes:
        setting: of `SamplingSettings`.
        stages: names of those that have it, which share its value.
        values: to try, in order.
        name: for tables, such as `upsampler.steps`.
    """

    setting: str
    stages: tuple[str, ...]
    values: tuple[Any, ...]
    name: str


@dataclass(frozen=True)
class Candidate:
    """One combination of settings.

    Attributes:
        settings: of each stage, in their order.
        values: of each axis, by its name; where stages that share an axis differ today, those of
            all, as a text.
    """

    settings: Mapping[str, SamplingSettings]
    values: Mapping[str, Any]

    def text(self) -> str:
        """The values in a few words: `base.guidance 2, upsampler.steps 20`."""
        return ", ".join(f"{name} {value_text(value)}" for name, value in self.values.items())


def value_text(value: Any) -> str:
    """A value of a setting, without needless digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_axes(texts: Sequence[str], pipeline: CascadePipeline) -> list[Axis]:
    """Read axes as they stand on a command line.

    Args:
        texts: such as `steps=10,20,50` or `upsampler.augmentation_level=0,0.1`. Without a stage,
            all stages that have the setting share each value.
        pipeline: whose stages they are.

    Raises:
        ContractError: for an unknown stage or setting, a value that is none of it, or a setting
            that is given twice.
    """
    axes = [_read_axis(text, dict(pipeline.stages.items())) for text in texts]
    places = [(stage, axis.setting) for axis in axes for stage in axis.stages]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ContractError(f"{twice[1]} of stage {twice[0]!r} is swept twice; give it once.")
    _check_percentiles(axes, pipeline)
    order = pipeline.stages.names
    return sorted(axes, key=lambda axis: order.index(axis.stages[0]))


def _check_percentiles(axes: Sequence[Axis], pipeline: CascadePipeline) -> None:
    """Refuse percentiles of a stage that is at no point to threshold by them."""
    for axis in axes:
        for name in axis.stages if axis.setting == "percentile" else ():
            thresholds = [pipeline.stages[name].sampling.threshold]
            for other in axes:
                if other.setting == "threshold" and name in other.stages:
                    thresholds = list(other.values)
            if "dynamic" not in thresholds:
                raise ContractError(
                    f"percentile has no effect on stage {name!r} with threshold {thresholds[0]}; "
                    "give threshold=dynamic too, or leave it out."
                )


def _read_axis(text: str, stages: Mapping[str, Stage]) -> Axis:
    name, equals, listed = text.partition("=")
    if not equals or not listed.strip():
        raise ContractError(
            f"{text!r} must be a setting and its values, such as steps=10,20,50 or "
            f"{next(iter(stages))}.steps=10,20,50."
        )
    stage, dot, setting = name.strip().rpartition(".")
    if setting not in SETTINGS:
        raise ContractError(f"unknown sampling setting {setting!r}: {nearest(setting, SETTINGS)}")
    if dot and stage not in stages:
        raise ContractError(f"no stage {stage!r} in this pipeline: {nearest(stage, stages)}")
    chosen = tuple(n for n, s in stages.items() if _has(setting, s) and stage in (n, ""))
    if not chosen:
        who = f"stage {stage!r} has no" if dot else "no stage of this pipeline has a"
        raise ContractError(f"{setting}: {who} use for it; leave it out.")
    values = tuple(dict.fromkeys(_read_value(setting, each.strip()) for each in listed.split(",")))
    return Axis(setting, chosen, values, name.strip())


def _read_value(setting: str, text: str) -> Any:
    if setting in WORDS:
        return text
    try:
        return int(text) if setting == "steps" else float(text)
    except ValueError as error:
        kind = "whole numbers" if setting == "steps" else "numbers"
        raise ContractError(f"{setting} takes {kind}, got {text!r}.") from error


def _has(setting: str, stage: Stage) -> bool:
    """Whether a stage has a use for a setting."""
    if setting in ("augmentation_level", "temperature"):
        return stage.contract.takes_image
    if setting == "guidance":
        return stage.label_drop > 0 or stage.image_drop > 0
    return True


def usual_axes(pipeline: CascadePipeline) -> list[Axis]:
    """What is worth trying of a pipeline of which nothing more is known.

    Guidance of a stage with classes, temperature and augmentation level of one that takes an
    image, half, the same and twice the number of steps, and some samplers; of these what the stage
    can do.
    """
    axes = []
    tiled = _works_in_tiles(pipeline)
    for name, stage in pipeline.stages.items():
        low, high = stage.contract.augmentation_range
        values: dict[str, Sequence[Any]] = {
            "steps": [max(1, round(factor * stage.sampling.steps)) for factor in STEP_FACTORS],
            "sampler": USUAL_SAMPLERS,
        }
        if stage.labels is not None and stage.label_drop > 0:
            values["guidance"] = GUIDANCE
        if stage.contract.takes_image and high > low:
            levels = [low + share * (high - low) for share in LEVEL_SHARES]
            values["augmentation_level"] = [round(level, 4) for level in levels]
        if stage.process.residual is not None:
            values["temperature"] = TEMPERATURES
        for setting, listed in values.items():
            able = [v for v in dict.fromkeys(listed) if _can(stage, setting, v, tiled=tiled)]
            axes.append(Axis(setting, (name,), tuple(able), f"{name}.{setting}"))
    return axes


def _works_in_tiles(pipeline: CascadePipeline) -> bool:
    """Whether users get its pictures from `upscale` and `colourise`, which go tile by tile."""
    return pipeline.stages[pipeline.stages.names[0]].contract.takes_image


def _check(stage: Stage, settings: SamplingSettings, *, tiled: bool) -> None:
    stage.check_settings(settings)
    if tiled:
        tiled_sampler(stage, settings)


def _can(stage: Stage, setting: str, value: Any, *, tiled: bool) -> bool:
    try:
        _check(stage, stage.sampling.changed(**{setting: value}), tiled=tiled)
    except ContractError:
        return False
    return True


def one_at_a_time(axes: Sequence[Axis], pipeline: CascadePipeline) -> list[Candidate]:
    """The settings of today, and those that differ from them in one axis.

    Those of the last stages come first, so that they find what the stages before have made.

    Args:
        axes: in the order of the stages.
        pipeline: whose settings are those of today.

    Raises:
        ContractError: if a stage cannot sample like one of them.
    """
    stages = dict(pipeline.stages.items())
    today = _today(axes, stages)
    found = [today]
    for axis in reversed(axes):
        for value in axis.values:
            changed = _candidate([axis], [value], stages, tiled=_works_in_tiles(pipeline))
            if changed.settings != today.settings:
                found.append(Candidate(changed.settings, {**today.values, **changed.values}))
    return found


def _today(axes: Sequence[Axis], stages: Mapping[str, Stage]) -> Candidate:
    values = {}
    for axis in axes:
        own = [getattr(stages[name].sampling, axis.setting) for name in axis.stages]
        same = all(value == own[0] for value in own)
        values[axis.name] = own[0] if same else " / ".join(value_text(value) for value in own)
    return Candidate({name: stage.sampling for name, stage in stages.items()}, values)


def combine(axes: Sequence[Axis], pipeline: CascadePipeline) -> list[Candidate]:
    """All combinations, that of today among them, so that those of one first stage are together.

    Args:
        axes: at least one, in the order of the stages.
        pipeline: whose settings are those of today.

    Raises:
        ContractError: if there are too many, or a stage cannot sample like one of them.
    """
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_CANDIDATES:
        raise ContractError(
            f"{count} combinations are more than {MOST_CANDIDATES}; sweep fewer values at a time."
        )
    stages = dict(pipeline.stages.items())
    current = _today(axes, stages)
    found = [
        _candidate(axes, values, stages, tiled=_works_in_tiles(pipeline))
        for values in itertools.product(*(axis.values for axis in axes))
    ]
    if all(each.settings != current.settings for each in found):
        found.insert(0, current)
    return found


def _candidate(
    axes: Sequence[Axis], values: Sequence[Any], stages: Mapping[str, Stage], *, tiled: bool
) -> Candidate:
    changes: dict[str, dict[str, Any]] = {name: {} for name in stages}
    for axis, value in zip(axes, values, strict=True):
        for name in axis.stages:
            changes[name][axis.setting] = value
    settings = {name: stages[name].sampling.changed(**each) for name, each in changes.items()}
    for name, each in settings.items():
        _check(stages[name], each, tiled=tiled)
    return Candidate(settings, {axis.name: value for axis, value in zip(axes, values, strict=True)})
