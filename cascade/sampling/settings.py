"""Sampling settings of a stage, such as steps, sampler and guidance, and changes to them.

Only `SamplingSettings` declares these settings. Recipes, commands, sweeps and Python calls hold
their changes as `Overrides`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError, nearest
from cascade.sampling.guidance import Guidance
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.samplers.table import default_options, make_sampler, option_names
from cascade.sampling.thresholding import Threshold, Thresholding

ALL = "all"  # in overrides: every stage


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a stage samples.

    Attributes:
        sampler: `ddim`, `ddpm`, `dpmsolver++`, `unipc`, `heun`, `euler`, or the class name of a
            scheduler of diffusers.
        steps: number of timesteps to visit.
        guidance: scale of classifier-free guidance; 1 for no guidance.
        guidance_interval: lowest and highest sigma / alpha at which guidance is applied; None for
            all (Kynkäänniemi et al. 2024, arXiv 2404.07724).
        augmentation_level: noise level of conditioning images, within the range of training.
        threshold: `static`, `dynamic` or `none`.
        percentile: percentile of |x0| at which the dynamic threshold clips, in (0, 1].
        temperature: standard deviation of all noise that a sample is drawn from, from 0 to 1; a
            lower one gives likelier samples: smoother, more faithful, less varied. Only for stages
            that take an image (as in SRFlow, Lugmayr et al. 2020, arXiv 2006.14200).
        options: options of the sampler by name, such as `eta` of ddim.

    Raises:
        ContractError: naming the value that is out of range.
    """

    sampler: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    augmentation_level: float = 0.0
    threshold: Threshold = "static"
    percentile: float = 0.995
    temperature: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_whole(self.steps) or not isinstance(self.sampler, str):
            raise ContractError(
                f"steps must be a whole number and sampler a name, got {self.steps!r} and "
                f"{self.sampler!r}."
            )
        for name in ("guidance", "augmentation_level", "temperature"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ContractError(f"{name} must be a number, got {value!r}.")
        if not 0 <= self.temperature <= 1:
            raise ContractError(f"temperature must be from 0 to 1, got {self.temperature}.")
        Thresholding(self.threshold, self.percentile)
        if self.guidance_interval is not None:
            object.__setattr__(self, "guidance_interval", _as_interval(self.guidance_interval))
        if not isinstance(self.options, Mapping):
            raise ContractError(f"options must be a mapping by name, got {self.options!r}.")
        _ = self.guide

    @property
    def guide(self) -> Guidance:
        """Scale and interval of guidance as one object."""
        return Guidance(self.guidance, self.guidance_interval)

    def make_sampler(self, process: NoiseProcess) -> Sampler:
        """Make the sampler for one batch.

        Raises:
            ContractError: if there is no such sampler, or it does not take the options or steps.
        """
        thresholds: dict[str, Any] = {"threshold": self.threshold, "percentile": self.percentile}
        return make_sampler(self.sampler, process, self.steps, **thresholds, **self.options)

    def changed(self, **values: Any) -> SamplingSettings:
        """Return settings with some values replaced; None leaves a value unchanged.

        Args:
            values: settings, or options of the sampler. If `sampler` changes, options that the new
                sampler does not have are dropped.

        Raises:
            ContractError: for a name that is neither a setting nor an option of the sampler.
        """
        values = {name: value for name, value in values.items() if value is not None}
        sampler = values.get("sampler", self.sampler)
        allowed = option_names(sampler) if isinstance(sampler, str) else []
        options = {name: v for name, v in self.options.items() if name in allowed}
        settings = {}
        further = values.pop("options", {})
        if not isinstance(further, Mapping):
            raise ContractError(f"options must be a mapping by name, got {further!r}.")
        for name, value in {**further, **values}.items():
            if name in SETTINGS:
                settings[name] = value
            elif name in allowed:
                options[name] = value
            else:
                raise ContractError(
                    f"unknown sampling setting {name!r}: {nearest(name, [*SETTINGS, *allowed])}"
                )
        return replace(self, **settings, options=options)

    def value(self, name: str) -> Any:
        """A setting, or an option of the sampler; None if the sampler has no such option."""
        if name in SETTINGS:
            return getattr(self, name)
        return {**default_options(self.sampler), **self.options}.get(name)

    def to_dict(self) -> dict[str, Any]:
        """The settings and the options of the sampler as one mapping of plain values."""
        values = {name: getattr(self, name) for name in SETTINGS}
        if self.guidance_interval is None:
            del values["guidance_interval"]
        else:
            values["guidance_interval"] = list(self.guidance_interval)
        return {**values, **self.options}


SETTINGS = tuple(each.name for each in fields(SamplingSettings) if each.name != "options")


class Overrides:
    """Changes to sampling settings, for all stages or for single ones.

    Args:
        values: partial settings by the name of a stage, or under `all`. The settings of a stage
            take precedence over those under `all`.
    """

    def __init__(self, values: Mapping[str, Mapping[str, Any]] | None = None) -> None:
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
        from yaml import YAMLError, safe_load

        values: dict[str, dict[str, Any]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            stage, dot, name = key.strip().rpartition(".")
            try:
                number = safe_load(value) if equals and name and bool(stage) == bool(dot) else None
            except YAMLError:
                number = None
            if number is None:
                raise ContractError(
                    f"{text!r} must be KEY=VALUE or STAGE.KEY=VALUE, such as steps=20."
                )
            values.setdefault(stage or ALL, {})[name] = _as_number(number)
        return cls(values)

    @classmethod
    def per_stage(cls, names: Sequence[str], run: Sequence[str], **settings: Any) -> Overrides:
        """Read the sampling settings of a pipeline call.

        Args:
            names: names of all stages.
            run: names of the stages that run, which are the last ones of `names`.
            settings: for each setting, one value for all stages, a sequence in the order of `run`
                or of `names`, or a mapping by stage name; None for no change.

        Raises:
            ContractError: for an unknown stage or a wrong number of values.
        """
        values: dict[str, dict[str, Any]] = {}
        for setting, value in settings.items():
            for stage, each in _spread(setting, value, names, run).items():
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
            ContractError: for an unknown setting.
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


def _spread(setting: str, value: Any, names: Sequence[str], run: Sequence[str]) -> dict[str, Any]:
    """Spread the value of a setting over stages: by stage name, or under `all`."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
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


def _is_one_value(setting: str, value: Sequence[Any]) -> bool:
    """Whether a sequence is one value: a text, or the two ends of an interval."""
    is_interval = setting == "guidance_interval" and not any(
        each is None or isinstance(each, Sequence) for each in value
    )
    return is_interval or isinstance(value, str)


def _as_interval(value: Any) -> tuple[float, float]:
    """Convert a guidance interval to a pair of numbers.

    Raises:
        ContractError: if it is not a pair of numbers.
    """
    pair = tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in pair
    ):
        raise ContractError(f"guidance_interval must be two numbers, got {value!r}.")
    return pair


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_number(value: Any) -> Any:
    """Convert numbers such as 1e-4, which YAML 1.1 reads as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
