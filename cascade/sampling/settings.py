"""Sampling settings of a stage, such as steps, sampler and guidance.

Only `SamplingSettings` declares these settings. Recipes, commands, sweeps and Python calls hold
their changes as `Overrides` (`overrides.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cascade.arguments import flag, plain_number, real_number, whole_number
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError, nearest
from cascade.sampling.guidance import Guidance
from cascade.sampling.samplers.instances import split_sampler
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.samplers.table import (
    default_options,
    make_options,
    make_sampler,
    option_names,
    option_of_others,
    sampler_names,
    sampler_text,
)
from cascade.sampling.thresholding import Threshold, Thresholding

NO_INTERVAL = "none"  # as a guidance interval: all noise levels
UNSAID = {  # what it means that saved settings leave one of these out
    "guidance_interval": NO_INTERVAL,
    "denoise": 1.0,
    "reuse": 1,
    "keep_colours": False,
}


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a stage samples.

    A `Sampler` or a scheduler, as an object or a class, is converted to its name and to the
    settings that it holds; only the class of a sampler that is not in the table stays.

    Attributes:
        sampler: name of the sampler (see `sampler_names`), or the class name of any scheduler of
            diffusers.
        steps: number of timesteps to visit, from 1 to the number of training timesteps.
        guidance: scale of classifier-free guidance; 1 for no guidance, others need a condition that
            training dropped sometimes.
        guidance_interval: lowest and highest sigma / alpha at which guidance is applied; None or
            `none` for all (Kynkäänniemi et al. 2024, arXiv 2404.07724).
        augmentation_level: noise level of conditioning images in [0, 1], within the range of
            training.
        denoise: share of the measured noise and compression to remove, from 0 to 1; at 0 the image
            counts as clean and keeps its grain. Only for stages with the condition `defects`.
        threshold: how the predicted image is kept in range: `static` clips it, `dynamic` scales it
            (Imagen), `none` leaves it, as stages of latents and embeddings do by default.
        percentile: percentile of |x0| at which the dynamic threshold clips, in (0, 1].
        threshold_cap: largest number at which the dynamic threshold clips, above 1; None for any.
        temperature: standard deviation of all noise in sampling, from 0 to 1; a lower one gives
            likelier samples: smoother, more faithful, less varied. Only for stages that take
            an image (as in SRFlow, Lugmayr et al. 2020, arXiv 2006.14200).
        reuse: number of consecutive network calls that share the features of its coarse blocks,
            which is faster and a little less exact; 1 to share none, at most all calls of an image
            (DeepCache, Ma et al. 2023, arXiv 2312.00858). Only for U-Nets of several levels and
            transformers, and not for students.
        keep_colours: whether a result gets the colours of its low-resolution image, averaged over
            blocks of 8x8 of its pixels; detail does not change. Only for stages that upscale pixels
            and were not trained on pairs.
        options: options of the sampler by name, such as `eta` of ddim.

    Raises:
        ContractError: for an unknown sampler or option, or naming the value that is out of range or
            contradicts a sampler object.
    """

    sampler: str | type[Sampler] = "ddim"
    steps: int = 50
    guidance: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    augmentation_level: float = 0.0
    denoise: float = 1.0
    threshold: Threshold = "static"
    percentile: float = 0.995
    threshold_cap: float | None = None
    temperature: float = 1.0
    reuse: int = 1
    keep_colours: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            raise ContractError(f"options must be a mapping by name, got {self.options!r}.")
        self._put(steps=whole_number("steps", self.steps, low=1))
        self._put(reuse=whole_number("reuse", self.reuse, low=1))
        self._put(keep_colours=flag("keep_colours", self.keep_colours))
        for name in ("guidance", "augmentation_level", "denoise", "temperature"):
            self._put(**{name: real_number(name, getattr(self, name))})
        for name in ("augmentation_level", "denoise", "temperature"):
            if not 0 <= getattr(self, name) <= 1:
                raise ContractError(f"{name} must be from 0 to 1, got {getattr(self, name)}.")
        self._put(percentile=plain_number(self.percentile))
        self._put(threshold_cap=plain_number(self.threshold_cap))
        _ = self.thresholding
        self._put(guidance_interval=as_interval(self.guidance_interval))
        self._put(options={name: plain_number(each) for name, each in self.options.items()})
        self._put_sampler()
        _ = self.guide
        make_options(self.sampler, self.options)

    def _put_sampler(self) -> None:
        """Put the name of the sampler, and the settings that a sampler object holds."""
        name, implied = split_sampler(self.sampler)
        explicit = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != each.default
        }
        joined = _joined(implied, {**explicit, **self.options})
        self._put(**{key: joined[key] for key in implied if key in SETTINGS})
        options = {key: joined[key] for key in implied if key not in SETTINGS}
        self._put(sampler=name, options={**self.options, **options})

    def _put(self, **values: Any) -> None:
        """Set fields of this frozen object while it is made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def guide(self) -> Guidance:
        """Scale and interval of guidance as one object."""
        return Guidance(self.guidance, self.guidance_interval)

    @property
    def thresholding(self) -> Thresholding:
        """Kind and numbers of the threshold as one object."""
        return Thresholding(self.threshold, self.percentile, self.threshold_cap)

    def make_sampler(self, process: NoiseProcess) -> Sampler:
        """Make the sampler for one batch.

        Raises:
            ContractError: if there is no such sampler, or it does not take the options or steps.
        """
        thresholds: dict[str, Any] = {
            "threshold": self.threshold,
            "percentile": self.percentile,
            "threshold_cap": self.threshold_cap,
        }
        return make_sampler(self.sampler, process, self.steps, **thresholds, **self.options)

    def changed(self, **values: Any) -> SamplingSettings:
        """Return settings with some values replaced; None leaves a value unchanged.

        Args:
            values: settings, or options of the sampler. If `sampler` changes, options that the new
                sampler does not have are dropped.

        Raises:
            ContractError: for a name that is neither a setting nor an option of the sampler, or a
                value that is out of range or contradicts a sampler object.
        """
        values = {name: value for name, value in values.items() if value is not None}
        sampler, implied = split_sampler(values.pop("sampler", self.sampler))
        allowed = option_names(sampler)
        values = _joined(implied, values)
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
                raise ContractError(_unknown(name, sampler, allowed))
        return replace(self, **settings, sampler=sampler, options=options)

    def value(self, name: str) -> Any:
        """A setting, or an option of the sampler; None if the sampler has no such option."""
        if name in SETTINGS:
            return getattr(self, name)
        return {**default_options(self.sampler), **self.options}.get(name)

    def to_dict(self) -> dict[str, Any]:
        """The settings and the options of the sampler as one mapping of plain values."""
        values = {name: getattr(self, name) for name in SETTINGS}
        values["sampler"] = sampler_text(self.sampler)
        interval = self.guidance_interval
        values["guidance_interval"] = NO_INTERVAL if interval is None else list(interval)
        if self.threshold_cap is None:
            del values["threshold_cap"]
        for name, usual in UNSAID.items():
            if values[name] == usual:
                del values[name]
        return {**values, **self.options}


SETTINGS = tuple(each.name for each in fields(SamplingSettings) if each.name != "options")


def setting_names(samplers: Iterable[Any]) -> list[str]:
    """The names that a call may give: settings, and options of any sampler.

    Args:
        samplers: samplers that need not be in the table, as names, objects or classes.
    """
    names = [*sampler_names(), *(split_sampler(each)[0] for each in samplers)]
    options = [option for name in names for option in option_names(name)]
    return list(dict.fromkeys([*SETTINGS, "options", *options]))


def as_interval(value: Any) -> tuple[float, float] | None:
    """Convert a guidance interval to a pair of numbers; None stands for all noise levels.

    Raises:
        ContractError: if it is not a pair of numbers.
    """
    if value is None or (isinstance(value, str) and value == NO_INTERVAL):
        return None
    pair = [plain_number(each) for each in value] if isinstance(value, Sequence) else []
    if len(pair) != 2 or not all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in pair
    ):
        raise ContractError(
            f"guidance_interval must be two numbers, got {value!r}; {NO_INTERVAL!r} stands for all "
            "noise levels."
        )
    return pair[0], pair[1]


def _joined(implied: Mapping[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Join the settings that a sampler object stands for with those given beside it.

    Raises:
        ContractError: if they contradict each other.
    """
    for name, value in implied.items():
        if name in explicit and explicit[name] != value:
            raise ContractError(
                f"{name} is {explicit[name]!r}, but the sampler object has {value!r}; give one of "
                "them."
            )
    return {**implied, **explicit}


def _unknown(name: str, sampler: str | type[Sampler], options: Sequence[str]) -> str:
    """The error message for a name that is neither a setting nor an option of the sampler."""
    unknown = f"unknown sampling setting {name!r}: {nearest(name, [*SETTINGS, *options])}"
    return option_of_others(sampler, name) or unknown
