"""Spreads the value of a setting over the stages of a pipeline: one for all, or one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cascade.errors import ContractError

ALL = "all"  # in overrides: every stage
MAPPINGS = ("config", "options")  # settings whose value is a mapping


def spread(setting: str, value: Any, names: Sequence[str], run: Sequence[str]) -> dict[str, Any]:
    """Spread the value of a setting over stages.

    Args:
        setting: its name.
        value: one value for all stages, a sequence in the order of `run` or of `names`, or a
            mapping by stage name; None for no change.
        names: names of all stages.
        run: names of the stages that run.

    Returns:
        The value by stage name, or under `all`.

    Raises:
        ContractError: for an unknown stage or a wrong number of values.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping) and not _is_one_mapping(setting, value, names):
        unknown = set(value) - set(names)
        if unknown:
            raise ContractError(f"{setting}: no stage {min(unknown)!r}; there are {list(names)}.")
        return {name: each for name, each in value.items() if name in run}
    if isinstance(value, Sequence) and not _is_one_value(setting, value):
        for stages in (run, names):
            if len(value) == len(stages):
                pairs = dict(zip(stages, value, strict=True))
                return {name: each for name, each in pairs.items() if name in run}
        raise ContractError(
            f"{setting}: got {len(value)} values for the {len(run)} stages {', '.join(run)}."
        )
    return {ALL: value}


def _is_one_mapping(setting: str, value: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a mapping is one value, such as `config={"solver_order": 3}`, not one by stage."""
    return setting in MAPPINGS and not (value and set(value) <= set(names))


def _is_one_value(setting: str, value: Sequence[Any]) -> bool:
    """Whether a sequence is one value: a text, or the two ends of an interval."""
    is_interval = setting == "guidance_interval" and not any(
        each is None or isinstance(each, Sequence) for each in value
    )
    return is_interval or isinstance(value, str)
