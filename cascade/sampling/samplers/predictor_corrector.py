"""Predictor-corrector sampling (Song et al. 2021, arXiv 2011.13456, algorithms 3 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final, get_args

from torch import Tensor

from cascade.diffusion.noise import NoiseSource
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.samplers.ddpm import DDPM
from cascade.sampling.samplers.euler_maruyama import EulerMaruyama
from cascade.sampling.samplers.langevin import check_langevin
from cascade.sampling.samplers.sampler import GridSampler, PairSampler, batch_of
from cascade.sampling.steps import langevin_step
from cascade.sampling.thresholding import Thresholding

Predictor = Literal["ddim", "ddpm", "euler-maruyama"]
PREDICTORS: dict[str, type[PairSampler]] = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "euler-maruyama": EulerMaruyama,
}


@dataclass(frozen=True, kw_only=True)
class PredictorCorrectorOptions:
    """Options of predictor-corrector sampling.

    Attributes:
        predictor: sampler, with its default options, that goes from one timestep to the next:
            `ddim`, `ddpm` or `euler-maruyama`.
        corrections: number of Langevin steps after each step of the predictor, at least 1; each is
            one more call of the network.
        signal_to_noise: size of a Langevin step, in (0, 1).

    Raises:
        ContractError: if a value is out of range.
    """

    predictor: Predictor = "ddim"
    corrections: int = 1
    signal_to_noise: float = 0.16

    def __post_init__(self) -> None:
        if self.predictor not in get_args(Predictor):
            raise ContractError(
                f"predictor must be one of {get_args(Predictor)}, got {self.predictor!r}."
            )
        check_langevin(self.corrections, self.signal_to_noise)


@final
class PredictorCorrector(GridSampler):
    """Corrects what a predictor makes by Langevin steps at the noise level that it has reached.

    N steps with M corrections call the network N + M (N - 1) times: the first noise needs no
    correction, and the predictor's last step, at timestep 0, gives the clean images. The timesteps
    lie closer together at low noise, as for `euler-maruyama`. The size of a correction depends on
    the noise level alone, so neither batch mates nor tiles change an image; see `langevin_step`.
    """

    Options = PredictorCorrectorOptions
    options: PredictorCorrectorOptions

    def __init__(
        self,
        process: NoiseProcess,
        steps: int,
        thresholding: Thresholding | None = None,
        options: object | None = None,
    ) -> None:
        super().__init__(process, steps, thresholding, options)
        kind = PREDICTORS[self.options.predictor]
        self._predictor = kind(process, steps, self.thresholding)

    @property
    def timesteps(self) -> list[int]:
        first, *later = self._levels
        return [first, *(t for t in later for _ in range(self.calls_per_step))]

    @property
    def calls_per_step(self) -> int:
        return self.options.corrections + 1

    @property
    def _levels(self) -> list[int]:
        return self.process.schedule.refined_timesteps(self.steps)

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        number, left = divmod(index, self.calls_per_step)  # call k (M + 1) is the predictor's k-th
        t, ratio = self.timesteps[index], self.options.signal_to_noise
        prediction, variance = self.process.split(output)
        x0 = self.predicted_x0(prediction, state, batch_of(t, state))
        if left == 0:
            t_prev = [*self._levels, -1][number + 1]
            return self._predictor.move(x0, state, (t, t_prev), noise, variance), x0
        fresh = noise.normal(*state.shape[1:])
        moved = langevin_step(self.process.schedule, state, x0, t, fresh, signal_to_noise=ratio)
        return moved, x0
