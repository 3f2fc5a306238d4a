"""DDPM: ancestral sampling (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final, get_args

from torch import Tensor

from cascade.diffusion.noise import NoiseSource
from cascade.errors import ContractError
from cascade.sampling.samplers.sampler import PairSampler, ShiftedOptions
from cascade.sampling.steps import Variance, ddpm_step


@dataclass(frozen=True, kw_only=True)
class DDPMOptions(ShiftedOptions):
    """Options of DDPM.

    Attributes:
        variance: `small` (that of the posterior) or `large` (beta); a learned variance replaces it.

    Raises:
        ContractError: for any other variance, or a shift that is out of range.
    """

    variance: Variance = "small"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in get_args(Variance):
            raise ContractError(
                f"variance must be one of {get_args(Variance)}, got {self.variance!r}."
            )


@final
class DDPM(PairSampler):
    """Draws every step from the posterior q(x_prev | x_t, x0)."""

    Options = DDPMOptions
    options: DDPMOptions

    def move(
        self,
        x0: Tensor,
        x_t: Tensor,
        pair: tuple[int, int],
        noise: NoiseSource,
        variance: Tensor | None,
    ) -> Tensor:
        t, t_prev = pair
        fresh = noise.normal(*x_t.shape[1:]) if t_prev >= 0 else None
        kind = self.options.variance
        schedule = self.process.schedule
        return ddpm_step(schedule, x_t, x0, t, t_prev, fresh, variance=kind, learned=variance)
