"""Changes to sampling settings, as recipes, commands, sweeps and Python calls hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cascade.arguments import shown
from cascade.errors import ContractError, nearest
from cascade.sampling.per_stage import ALL, spread
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.texts import read_value


class Overrides:
    """Changes to sampling settings, for all stages or for single ones.

    Args:
        values: partial settings by the name of a stage, or under `all`. The settings of a stage
            take precedence over those under `all`. None for a setting changes nothing.

    Raises:
        ContractError: if the values have another form.
    """

    def __init__(self, values: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        parts = values.values() if isinstance(values, Mapping) else [values or {}]
        if not all(isinstance(each, Mapping) for each in parts):
            raise ContractError(
                "overrides are settings by the name of a stage, or under 'all', such as "
                f"Overrides({{'all': {{'steps': 20}}}}), got {shown(values)}."
            )
        self.values = {
            stage: {name: value for name, value in settings.items() if value is not None}
            for stage, settings in (values or {}).items()
        }

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Overrides:
        """Read `steps=20` and `upsampler.guidance=2.0`.

        Raises:
            ContractError: if a text is not of this form.
        """
        values: dict[str, dict[str, Any]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            stage, dot, name = key.strip().rpartition(".")
            is_change = equals and name and bool(stage) == bool(dot)
            setting = read_value(value) if is_change else None
            if setting is None:
                raise ContractError(
                    f"{text!r} must be KEY=VALUE or STAGE.KEY=VALUE, such as steps=20."
                )
            values.setdefault(stage or ALL, {})[name] = setting
        return cls(values)

    @classmethod
    def per_stage(cls, names: Sequence[str], run: Sequence[str], **settings: Any) -> Overrides:
        """Read the sampling settings of a pipeline call.

        Args:
            names: names of all stages.
            run: names of the stages that run, a part of `names` without gaps.
            settings: for each setting, one value for all stages, a sequence in the order of `run`
                or of `names`, or a mapping by stage name; None for no change.

        Raises:
            ContractError: for an unknown stage or a wrong number of values.
        """
        values: dict[str, dict[str, Any]] = {}
        for setting, value in settings.items():
            for stage, each in spread(setting, value, names, run).items():
                values.setdefault(stage, {})[setting] = each
        return cls(values)

    def __bool__(self) -> bool:
        return any(self.values.values())

    def __repr__(self) -> str:
        return f"Overrides({self.values!r})"

    def with_later(self, other: Overrides) -> Overrides:
        """Combine with later changes, which take precedence."""
        merged = {stage: dict(settings) for stage, settings in self.values.items()}
        for name in other.values.get(ALL, {}):
            for settings in merged.values():
                settings.pop(name, None)
        for stage, settings in other.values.items():
            merged.setdefault(stage, {}).update(settings)
        return Overrides(merged)

    def within(self, names: Sequence[str]) -> Overrides:
        """Keep the changes for all stages and for the stages with these names."""
        return Overrides({k: v for k, v in self.values.items() if k == ALL or k in names})

    def of(self, stage: str) -> dict[str, Any]:
        """The changes to one stage."""
        return {**self.values.get(ALL, {}), **self.values.get(stage, {})}

    def names(self) -> set[str]:
        """The names of all changed settings."""
        return {name for settings in self.values.values() for name in settings}

    def apply(self, stage: str, settings: SamplingSettings) -> SamplingSettings:
        """Apply the changes to the settings of a stage.

        Raises:
            ContractError: for an unknown setting, or a value that is out of range.
        """
        return settings.changed(**self.of(stage))

    def check(self, names: Sequence[str]) -> None:
        """Check that every changed stage exists.

        Raises:
            ContractError: naming the stage that does not exist.
        """
        for stage in self.values:
            if stage != ALL and stage not in names:
                raise ContractError(f"no stage {stage!r} in this pipeline: {nearest(stage, names)}")
