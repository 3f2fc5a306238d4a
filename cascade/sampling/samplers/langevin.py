"""Annealed Langevin dynamics (Song & Ermon 2019, arXiv 1907.05600)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from cascade.arguments import real_number, whole_number
from cascade.diffusion.noise import NoiseSource
from cascade.errors import ContractError
from cascade.sampling.samplers.sampler import GridSampler, batch_of
from cascade.sampling.steps import langevin_step


@dataclass(frozen=True, kw_only=True)
class LangevinOptions:
    """Options of Langevin dynamics.

    Attributes:
        corrections: number of Langevin steps at each timestep, at least 1; each is one call of the
            network.
        signal_to_noise: size of a Langevin step, in (0, 1); larger ones forget faster, and leave a
            variance that is too large.

    Raises:
        ContractError: if a value is out of range.
    """

    corrections: int = 5
    signal_to_noise: float = 0.4

    def __post_init__(self) -> None:
        check_langevin(self.corrections, self.signal_to_noise)


@final
class Langevin(GridSampler):
    """Takes Langevin steps at each timestep, and at the end one denoising step.

    Nothing but the score moves the images from one noise level to the next. Each step removes a
    share of 2 r^2 of the noise that is too much for its level, where r is `signal_to_noise`, so the
    walk needs some hundred calls to reach low noise; with fewer, grain is left. Between timesteps
    the images stay as they are, because the process preserves their variance. The timesteps lie
    closer together at low noise and end at 0, like the levels of the paper.
    """

    Options = LangevinOptions
    options: LangevinOptions

    @property
    def timesteps(self) -> list[int]:
        levels = self.process.schedule.refined_timesteps(self.steps)
        return [*(t for t in levels for _ in range(self.calls_per_step)), levels[-1]]

    @property
    def calls_per_step(self) -> int:
        return self.options.corrections

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        timesteps = self.timesteps
        t = timesteps[index]
        x0 = self.predicted_x0(self.process.split(output)[0], state, batch_of(t, state))
        if index == len(timesteps) - 1:
            return x0, x0
        fresh, ratio = noise.normal(*state.shape[1:]), self.options.signal_to_noise
        moved = langevin_step(self.process.schedule, state, x0, t, fresh, signal_to_noise=ratio)
        return moved, x0


def check_langevin(corrections: int, signal_to_noise: float) -> None:
    """Check the options of samplers that take Langevin steps.

    Raises:
        ContractError: if a value is out of range.
    """
    whole_number("corrections", corrections, low=1)
    if not 0 < real_number("signal_to_noise", signal_to_noise) < 1:
        raise ContractError(
            f"signal_to_noise must be above 0 and below 1, got {signal_to_noise}; 0.16 is usual."
        )
