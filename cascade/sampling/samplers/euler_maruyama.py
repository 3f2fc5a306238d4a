"""Euler-Maruyama: the reverse SDE in its plainest form (Song et al. 2021, arXiv 2011.13456)."""

from __future__ import annotations

from typing import final

from torch import Tensor

from cascade.diffusion.noise import NoiseSource
from cascade.sampling.samplers.sampler import PairSampler
from cascade.sampling.steps import euler_maruyama_step


@final
class EulerMaruyama(PairSampler):
    """Follows the reverse SDE of the variance-preserving process on the training timesteps.

    It converges to what `ddpm` draws, whose steps it approximates to first order, and needs more of
    them: at unit variance, steps with beta leave a variance of 1 / (1 - beta / 4). The timesteps
    lie closer together at low noise and end at 0, because the score grows without bound beyond;
    there, the predicted clean image is the result. Learned variances are not used.
    """

    @property
    def timesteps(self) -> list[int]:
        return self.process.schedule.refined_timesteps(self.steps)

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
        return euler_maruyama_step(self.process.schedule, x_t, x0, t, t_prev, fresh)
