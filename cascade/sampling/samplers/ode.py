"""The probability flow ODE by Heun's method (Song et al. 2021, arXiv 2011.13456, section 4.3)."""

from __future__ import annotations

import math
from typing import final

from torch import Tensor

from cascade.diffusion.noise import NoiseSource
from cascade.sampling.canvas import new_canvas
from cascade.sampling.samplers.sampler import GridSampler, batch_of


@final
class ODE(GridSampler):
    """Solves the probability flow, which carries noise to images without fresh noise.

    Over r = alpha / sigma, the flow is d(x / sigma) / dr = x0(x, r). A step of Euler's method in
    these variables is a step of DDIM with eta 0. Heun's method calls the network again where that
    step ends, and takes x0 as linear in log r between the two calls (Lu et al. 2022, arXiv
    2211.01095; Karras et al. 2022, arXiv 2206.00364, algorithm 1, in other variables). So it makes
    the images of DDIM with very many steps. N steps call the network 2 N - 1 times; the timesteps
    lie closer together at low noise, and the last call, at timestep 0, gives the clean images.
    """

    _first: Tensor | None = None  # x0 of the first call of the step, for the canvas
    _shape: tuple[int, ...] = ()  # of the canvas

    @property
    def timesteps(self) -> list[int]:
        first, *later = self._levels
        return [first, *(t for t in later for _ in range(2))]

    @property
    def calls_per_step(self) -> int:
        return 2

    @property
    def canvases(self) -> int:
        return 1

    @property
    def _levels(self) -> list[int]:
        return self.process.schedule.refined_timesteps(self.steps)

    def start(self, noise: Tensor) -> Tensor:
        self._shape = tuple(noise.shape)
        return noise

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        t = self.timesteps[index]
        x0 = self.predicted_x0(self.process.split(output)[0], state, batch_of(t, state))
        number, is_second = divmod(index, 2)
        if number == self.steps - 1:
            return x0, x0
        kept, gain, weight = self._coefficients(*self._levels[number : number + 2])
        if not is_second:
            self._keep(x0, noise.rows)
            return kept * state + gain * x0, x0
        assert self._first is not None, "the first call of a step comes before the second"
        first = self._first[..., noise.rows, :]
        return state + gain * weight * (x0 - first), x0

    def _keep(self, x0: Tensor, rows: slice) -> None:
        """Keep x0 of the whole canvas, or of a strip of it."""
        if rows == slice(None):
            self._first = x0
            return
        if self._first is None:
            self._first = new_canvas(self._shape)
        self._first[..., rows, :] = x0

    def _coefficients(self, t: int, t_prev: int) -> tuple[float, float, float]:
        """Factors of x_t and of x0 in Euler's step, and the weight of the second x0 in Heun's."""
        schedule = self.process.schedule
        here, there = schedule.alpha_bar_at(t), schedule.alpha_bar_at(t_prev)
        kept = math.sqrt((1 - there) / (1 - here))
        gain = math.sqrt(there) - math.sqrt(here) * kept
        h = float(schedule.log_alpha_sigma[t_prev] - schedule.log_alpha_sigma[t])  # may be inf
        return kept, gain, 1 / (1 - math.exp(-h)) - 1 / h
