"""Which sampling settings the stages of a chain read, and what they are after changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.sampling.overrides import Overrides
from cascade.sampling.per_stage import ALL
from cascade.sampling.samplers.table import default_options, sampler_names
from cascade.sampling.settings import SETTINGS, UNSAID, SamplingSettings
from cascade.stage import Stage

IMAGE_SETTINGS = ("augmentation_level", "temperature")  # only for stages that take an image
DIAL = "denoise"  # only for stages that are told how degraded their image is
COLOURS = "keep_colours"  # only for stages whose image has the colours of the result
GUIDANCE_SETTINGS = ("guidance", "guidance_interval")  # only for stages with droppable conditions
THRESHOLD_SETTINGS = ("percentile", "threshold_cap")  # only for the dynamic threshold


def changed_sampling(
    stages: Mapping[str, Stage], overrides: Overrides
) -> dict[str, SamplingSettings]:
    """The settings of the stages of a chain by name; see `StageChain.with_sampling`.

    Args:
        stages: the stages by name, first stage first.
        overrides: the changes.

    Raises:
        ContractError: for a stage or a setting that does not exist, or a value that does not fit.
    """
    overrides.check(list(stages))
    _check_that_a_stage_reads_them(stages, overrides)
    contracts = [stage.contract for stage in stages.values()]
    changed = {}
    for name, stage in stages.items():
        own = overrides.values.get(name, {})
        values = overrides.of(name) if stage.has_settings else dict(own)
        for setting in _unread(stage.contract, contracts) - set(own):
            values.pop(setting, None)
        if not stage.contract.needs_image:
            for setting in IMAGE_SETTINGS:
                before = stage.sampling.value(setting)  # which may be said again
                if own.get(setting, before) != before:
                    raise ContractError(f"{setting}: stage {name!r} takes no image.")
                values.pop(setting, None)
        changed[name] = stage.sampling.changed(**values)
    return changed


def sampling_of(stages: Iterable[tuple[str, Stage]]) -> dict[str, dict[str, Any]]:
    """The settings of named stages, as they are recorded; empty for stages that take no steps."""
    return {name: stage.sampling.to_dict() if stage.has_settings else {} for name, stage in stages}


def settings_read(contract: Contract, settings: SamplingSettings) -> dict[str, Any]:
    """The settings that a stage which samples in steps reads, with their values.

    Returns:
        Plain values by name, the options of the sampler last; as in a recipe's sampling section.
    """
    unread = {
        *(() if contract.droppable else GUIDANCE_SETTINGS),
        *(() if contract.needs_image else IMAGE_SETTINGS),
        *(() if contract.has_dial else (DIAL,)),
        *(() if contract.has_colours else (COLOURS,)),
        *(() if settings.threshold == "dynamic" else THRESHOLD_SETTINGS),
    }
    values = {**UNSAID, **default_options(settings.sampler), **settings.to_dict()}
    names = dict.fromkeys([*SETTINGS, *values])
    return {name: values[name] for name in names if name in values and name not in unread}


def with_unsaid(values: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings of a stage with those that they leave out, options of the sampler included."""
    sampler = values.get("sampler")
    options = default_options(sampler) if sampler in sampler_names() else {}
    return {**UNSAID, **options, **values} if values else {}


def setting_changes(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """The settings that differ from earlier ones, as `stage.name`; all of a stage without these.

    Args:
        before: saved settings by stage.
        now: other settings of the stages, or of some of them.
    """
    changes = []
    for stage, values in now.items():
        old, new = with_unsaid(before.get(stage, {})), with_unsaid(values)
        changes += [
            f"{stage}.{name}"
            for name, value in new.items()
            if (old[name] != value if name in old else name in values or not old)
        ]
    return changes


def _check_that_a_stage_reads_them(stages: Mapping[str, Stage], overrides: Overrides) -> None:
    if not any(stage.contract.needs_image for stage in stages.values()):
        for name in overrides.values.get(ALL, {}).keys() & set(IMAGE_SETTINGS):
            raise ContractError(f"{name}: no stage of this run takes an image.")
    if not any(stage.has_settings for stage in stages.values()):
        for name in overrides.names():
            raise ContractError(f"{name}: no stage of this run samples in steps; leave it out.")


def _unread(contract: Contract, contracts: Sequence[Contract]) -> set[str]:
    """The settings that a stage passes over, because they concern other stages of its chain."""
    unread: set[str] = set()
    if not contract.droppable and any(each.droppable for each in contracts):
        unread |= set(GUIDANCE_SETTINGS)
    if not contract.has_dial and any(each.has_dial for each in contracts):
        unread.add(DIAL)
    if not contract.has_colours and any(each.has_colours for each in contracts):
        unread.add(COLOURS)
    return unread
