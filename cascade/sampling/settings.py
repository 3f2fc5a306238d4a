"""How a stage samples: sampler, steps, guidance, augmentation, thresholding."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from cascade.errors import ContractError, nearest
from cascade.sampling.thresholding import Threshold


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a stage samples unless told otherwise.

    Attributes:
        sampler: `ddim`, `ddpm`, `dpmsolver++`, `unipc`, `heun`, `euler`, or a diffusers scheduler.
        steps: timesteps to visit.
        guidance: classifier-free guidance scale; 1 is none.
        augmentation_level: noise on the low-resolution image, in the contract's range.
        threshold: `static`, `dynamic` or `none`.
        percentile: of the dynamic threshold.
        eta: of ddim; 0 is deterministic.
        temperature: of all noise that a sample is drawn from, from 0 to 1; below 1 samples come
            nearer to the most likely ones: smoother, more faithful, less varied. It is for stages
            that take an image (as in SRFlow, Lugmayr et al. 2020, arXiv 2006.14200).
    """

    sampler: str = "ddim"
    steps: int = 50
    guidance: float = 1.0
    augmentation_level: float = 0.0
    threshold: Threshold = "static"
    percentile: float = 0.995
    eta: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.threshold not in get_args(Threshold):
            raise ContractError(
                f"threshold must be one of {get_args(Threshold)}, got {self.threshold!r}."
            )
        if not isinstance(self.steps, int) or not isinstance(self.sampler, str):
            raise ContractError(
                f"steps must be a whole number and sampler a name, got {self.steps!r} and "
                f"{self.sampler!r}."
            )
        for name in ("guidance", "augmentation_level", "percentile", "eta", "temperature"):
            value = getattr(self, name)
            if not isinstance(value, int | float):
                raise ContractError(f"{name} must be a number, got {value!r}.")
        if not 0 <= self.temperature <= 1:
            raise ContractError(f"temperature must be from 0 to 1, got {self.temperature}.")
        if not 0 < self.percentile <= 1 or not 0 <= self.eta < math.inf:
            raise ContractError(
                f"percentile must be in (0, 1] and eta at least 0, got {self.percentile} and "
                f"{self.eta}."
            )

    def changed(self, **values: Any) -> SamplingSettings:
        """The same settings with some values replaced; None leaves a value as it is.

        Raises:
            ContractError: for an unknown setting.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise ContractError(f"unknown sampling setting {name!r}: {nearest(name, known)}")
        return replace(self, **{name: v for name, v in values.items() if v is not None})

    def sampler_options(self) -> dict[str, Any]:
        """What `make_sampler` takes besides name and steps."""
        options: dict[str, Any] = {"threshold": self.threshold, "percentile": self.percentile}
        # An eta that this sampler would not use is passed on too, so that it is refused.
        return options | ({"eta": self.eta} if self.sampler == "ddim" or self.eta else {})
