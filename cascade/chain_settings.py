"""Which sampling settings the stages of a chain read, and what they are after changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.sampling.overrides import Overrides
from cascade.sampling.per_stage import ALL
from cascade.sampling.settings import SamplingSettings
from cascade.stage import Stage

IMAGE_SETTINGS = ("augmentation_level", "temperature")  # only for stages that take an image
DIAL = "denoise"  # only for stages that are told how degraded their image is
COLOURS = "keep_colours"  # only for stages whose image has the colours of the result
GUIDANCE_SETTINGS = ("guidance", "guidance_interval")  # only for stages with droppable conditions


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
