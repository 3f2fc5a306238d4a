"""The axes that a sweep tries by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.stage import Stage
from cascade.sweeping.axes import Axis
from cascade.sweeping.outcomes import Preference

GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
TEMPERATURES = (0.4, 0.6, 0.8, 1.0)
LEVEL_SHARES = (0.0, 0.25, 0.5, 1.0)  # positions in the range of augmentation levels in training
STEP_FACTORS = (0.5, 1.0, 2.0)  # factors of the current number of steps
FEW_STEPS = (1, 2, 3, 4, 6, 8)  # for speed, up to the current number of steps
SHIFTS = (1.0, 2.0, 4.0, 8.0)  # of the timesteps
SAMPLERS = ("ddim", "ddpm", "dpmsolver++")


def default_axes(pipeline: CascadePipeline, prefer: Preference = "quality") -> list[Axis]:
    """Make the default axes for every stage of a pipeline.

    For each stage: half, the same and twice its number of steps, and some samplers; shifts of the
    timesteps if its sampler has them and takes more than one step; guidance if training dropped its
    labels, text or embedding; augmentation levels if it was trained on several; temperatures if it
    refines a first guess. Values that the stage cannot sample with are left out.

    Args:
        pipeline: the pipeline.
        prefer: with `speed`, the numbers of steps are `FEW_STEPS`, half and the same.
    """
    axes = []
    for name, stage in pipeline.stages.items():
        if not stage.has_settings:
            continue
        for setting, values in _values_to_try(stage, prefer).items():
            possible = [value for value in dict.fromkeys(values) if _can(stage, setting, value)]
            axes.append(Axis(setting, (name,), tuple(possible), f"{name}.{setting}"))
    return axes


def _values_to_try(stage: Stage, prefer: Preference) -> Mapping[str, Sequence[Any]]:
    """The values of each setting; shifts are only tried for quality, and not in one step."""
    values: dict[str, Sequence[Any]] = {"steps": _steps(stage, prefer), "sampler": SAMPLERS}
    shift = stage.sampling.value("timestep_shift")
    if prefer == "quality" and shift is not None and stage.sampling.steps > 1:
        values["timestep_shift"] = (*SHIFTS, shift)
    if any(
        each.image_space(stage.space) is None and not each.has_dial
        for each in stage.contract.droppable
    ):
        values["guidance"] = GUIDANCE_SCALES
    levels = _augmentation_levels(stage)
    if levels:
        values["augmentation_level"] = levels
    if isinstance(stage, DiffusionStage) and stage.process.residual is not None:
        values["temperature"] = TEMPERATURES
    return values


def _steps(stage: Stage, prefer: Preference) -> list[int]:
    """Numbers of steps; for speed, none above the current one."""
    own = stage.sampling.steps
    steps = [max(1, round(factor * own)) for factor in STEP_FACTORS]
    if prefer == "quality":
        return steps
    return sorted({each for each in (*FEW_STEPS, *steps) if each <= own})


def _augmentation_levels(stage: Stage) -> list[float]:
    """Levels in the training range of all noised images; an empty list if there is only one."""
    ranges = [each.augmentation_range for each in stage.conditions]
    ranges = [each for each in ranges if each is not None]
    low = max((low for low, _ in ranges), default=0.0)
    high = min((high for _, high in ranges), default=0.0)
    if high <= low:
        return []
    return [round(low + share * (high - low), 4) for share in LEVEL_SHARES]


def _can(stage: Stage, setting: str, value: Any) -> bool:
    """Whether the stage can sample with one setting changed."""
    try:
        stage.check_settings(stage.sampling.changed(**{setting: value}))
    except ContractError:
        return False
    return True
