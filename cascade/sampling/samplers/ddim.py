"""DDIM: implicit sampling (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from cascade.diffusion.noise import NoiseSource
from cascade.errors import ContractError
from cascade.sampling.samplers.sampler import PairSampler, ShiftedOptions, batch_of
from cascade.sampling.steps import ddim_step


@dataclass(frozen=True, kw_only=True)
class DDIMOptions(ShiftedOptions):
    """Options of DDIM.

    Attributes:
        eta: share of fresh noise, at least 0: 0 is deterministic, 1 is as noisy as DDPM.

    Raises:
        ContractError: if a value is out of range.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta < math.inf:
            raise ContractError(f"eta must be a number of at least 0, got {self.eta!r}.")


@final
class DDIM(PairSampler):
    """Takes the implicit step, with eps derived again from the thresholded x0.

    Without that, x0 and eps would not add up to x_t. Learned variances are not used.
    """

    Options = DDIMOptions
    options: DDIMOptions

    def move(
        self,
        x0: Tensor,
        x_t: Tensor,
        pair: tuple[int, int],
        noise: NoiseSource,
        variance: Tensor | None,
    ) -> Tensor:
        t, t_prev = pair
        eps = self.process.eps(x0, x_t, batch_of(t, x_t))
        eta = self.options.eta
        fresh = noise.normal(*x_t.shape[1:]) if eta > 0 and t_prev >= 0 else None
        return ddim_step(self.process.schedule, x0, eps, t, t_prev, fresh, eta=eta)
