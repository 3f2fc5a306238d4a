"""Samplers: from pure noise to an image, one call of the network after another.

`ddpm` and `ddim` are our own and walk explicit (t, t_prev) pairs; every other name is a diffusers
scheduler, given our schedule, thresholding and timesteps.

Shapes: all images (B, C, H, W).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from cascade.diffusion.noise import NoiseSource, SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import LARGEST_BETA
from cascade.errors import ContractError, nearest
from cascade.sampling.steps import Variance, ddim_step, ddpm_step
from cascade.sampling.thresholding import Threshold, apply_threshold

DIFFUSERS_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
}
SAMPLERS = ("ddim", "ddpm", *DIFFUSERS_SAMPLERS)


class Sampler(ABC):
    """Walks from noise to image; made anew for every batch, since it may remember earlier steps.

    Args:
        process: schedule and prediction of the stage.
        steps: how many timesteps to visit.
        threshold: how the predicted image is kept in range.
        percentile: of dynamic thresholding, in (0, 1].
    """

    def __init__(
        self,
        process: NoiseProcess,
        steps: int,
        *,
        threshold: Threshold = "static",
        percentile: float = 0.995,
    ) -> None:
        self.process = process
        self.steps = steps
        self.threshold: Threshold = threshold
        self.percentile = percentile

    @property
    @abstractmethod
    def timesteps(self) -> list[int]:
        """The timestep of every call of the network, in order."""

    @abstractmethod
    def start(self, noise: Tensor) -> Tensor:
        """Turn standard normal noise into the sampler's first state."""

    @abstractmethod
    def network_input(self, state: Tensor, index: int) -> Tensor:
        """The x_t that the network sees at call `index`."""

    @abstractmethod
    def step(
        self, output: Tensor, state: Tensor, index: int, noise: SeededNoise
    ) -> tuple[Tensor, Tensor]:
        """Advance by one call.

        Args:
            output: of the network, with variance channels where they are learned.
            state: what `start` or the last `step` returned.
            index: which call it was, from 0.
            noise: the images' random streams.

        Returns:
            The next state, and the predicted clean image; after the last call the state is x0.
        """

    def _predicted_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        x0 = self.process.x0(prediction, x_t, t)
        return apply_threshold(x0, self.threshold, percentile=self.percentile)


class PairSampler(Sampler):
    """What DDPM and DDIM share: explicit pairs, and eps re-derived from the thresholded image."""

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(t, t_prev) of every step; the last t_prev is -1, the clean image."""
        timesteps = self.timesteps
        return list(zip(timesteps, [*timesteps[1:], -1], strict=True))

    @property
    def timesteps(self) -> list[int]:
        return self.process.schedule.sampling_timesteps(self.steps)

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def start_from(self, x0: Tensor, noise: Tensor, strength: float) -> tuple[Tensor, int]:
        """Noise a given image and go on from there (SDEdit, Meng et al. 2021, arXiv 2108.01073).

        Args:
            x0: (B, C, H, W) in [-1, 1].
            noise: standard normal, of the same shape.
            strength: the part of the steps that are taken, in (0, 1]; at 1 little is left of x0.

        Returns:
            The first state and the index of the first call.
        """
        index = min(round((1 - strength) * self.steps), self.steps - 1)
        t = _batch_of(self.timesteps[index], x0)
        return self.process.schedule.add_noise(x0, noise, t), index

    def network_input(self, state: Tensor, index: int) -> Tensor:
        return state

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        t, t_prev = self.pairs[index]
        prediction, variance = self.process.split(output)
        x0 = self._predicted_x0(prediction, state, _batch_of(t, state))
        return self._move(x0, state, t, t_prev, noise, variance), x0

    @abstractmethod
    def _move(
        self,
        x0: Tensor,
        x_t: Tensor,
        t: int,
        t_prev: int,
        noise: NoiseSource,
        variance: Tensor | None,
    ) -> Tensor:
        """Go from x_t at t to t_prev."""


class DDPM(PairSampler):
    """Ancestral sampling.

    Args:
        process: schedule and prediction of the stage.
        steps: how many timesteps to visit.
        variance: `small` (the posterior's) or `large` (beta); learned variances take their place.
        options: as for `Sampler`.
    """

    def __init__(
        self, process: NoiseProcess, steps: int, *, variance: Variance = "small", **options: Any
    ) -> None:
        super().__init__(process, steps, **options)
        self.variance: Variance = variance

    def _move(self, x0, x_t, t, t_prev, noise, variance) -> Tensor:
        fresh = noise.normal(*x_t.shape[1:]) if t_prev >= 0 else None
        return ddpm_step(
            self.process.schedule,
            x_t,
            x0,
            t,
            t_prev,
            fresh,
            variance=self.variance,
            learned=variance,
        )


class DDIM(PairSampler):
    """Implicit sampling; learned variances are not used.

    Args:
        process: schedule and prediction of the stage.
        steps: how many timesteps to visit.
        eta: 0 is deterministic, 1 as noisy as DDPM.
        options: as for `Sampler`.
    """

    def __init__(
        self, process: NoiseProcess, steps: int, *, eta: float = 0.0, **options: Any
    ) -> None:
        super().__init__(process, steps, **options)
        self.eta = eta

    def _move(self, x0, x_t, t, t_prev, noise, variance) -> Tensor:
        eps = self.process.eps(x0, x_t, _batch_of(t, x_t))
        fresh = noise.normal(*x_t.shape[1:]) if self.eta > 0 and t_prev >= 0 else None
        return ddim_step(self.process.schedule, x0, eps, t, t_prev, fresh, eta=self.eta)


class DiffusersSampler(Sampler):
    """Any diffusers scheduler, fed with v predictions of thresholded images.

    Every such scheduler understands v, and v exists where the SNR is zero, which eps does not.

    Args:
        process: schedule and prediction of the stage.
        steps: how many timesteps to visit; second-order schedulers call the network more often.
        scheduler: name of a class of diffusers, such as `UniPCMultistepScheduler`.
        config: further keys of its configuration.
        options: as for `Sampler`.
    """

    def __init__(
        self,
        process: NoiseProcess,
        steps: int,
        *,
        scheduler: str,
        config: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(process, steps, **options)
        import diffusers

        # Betas instead of a named schedule: several schedulers know no zero terminal SNR, and at an
        # SNR of exactly zero their sigmas would be infinite.
        wanted = {
            "num_train_timesteps": process.schedule.train_steps,
            "trained_betas": process.schedule.betas.clamp(max=LARGEST_BETA).tolist(),
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "clip_sample": False,  # the image is thresholded here
            **(config or {}),
        }
        scheduler_class = getattr(diffusers, scheduler)
        known = inspect.signature(scheduler_class.__init__).parameters
        if not {"trained_betas", "prediction_type"} <= set(known):
            raise ContractError(
                f"{scheduler} cannot be given the stage's noise schedule, or needs a package that "
                f"is not installed; use one of {', '.join(SAMPLERS)}."
            )
        self.scheduler = scheduler_class(**{k: v for k, v in wanted.items() if k in known})
        self.scheduler.set_timesteps(steps)
        if min(self.timesteps) < 0:  # its float arithmetic counts one step too many
            raise ContractError(
                f"diffusers' {scheduler} cannot space {steps} of {process.schedule.train_steps} "
                f"timesteps evenly; use another number of steps, such as one that divides "
                f"{process.schedule.train_steps}."
            )

    @property
    def timesteps(self) -> list[int]:
        return [round(float(t)) for t in self.scheduler.timesteps]

    def start(self, noise: Tensor) -> Tensor:
        return noise * float(self.scheduler.init_noise_sigma)

    def network_input(self, state: Tensor, index: int) -> Tensor:
        return self.scheduler.scale_model_input(state, self.scheduler.timesteps[index])

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: SeededNoise
    ) -> tuple[Tensor, Tensor]:
        prediction, _ = self.process.split(output)
        x_t = self.network_input(state, index)
        t = _batch_of(self.timesteps[index], state)
        x0 = self._predicted_x0(prediction, x_t, t)
        alpha, sigma = self.process.schedule.alpha_sigma(t)
        v = alpha * self.process.eps(x0, x_t, t) - sigma * x0
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": noise.generators} if takes_generator else {}
        moved = self.scheduler.step(v, self.scheduler.timesteps[index], state, **extra)
        is_last = index == len(self.scheduler.timesteps) - 1  # some would stop at timestep 0
        return x0 if is_last else moved.prev_sample, x0


def make_sampler(name: str, process: NoiseProcess, steps: int, **options: Any) -> Sampler:
    """Build a sampler by name.

    Args:
        name: one of `SAMPLERS`, or the class name of any diffusers scheduler.
        process: schedule and prediction of the stage.
        steps: how many timesteps to visit, from 1 to T.
        options: of the sampler: `threshold` and `percentile` for all, `eta` for ddim, `variance`
            for ddpm, `config` for a diffusers scheduler.

    Raises:
        ContractError: for an unknown name, an option that the sampler does not have, or a number
            of steps out of range.
    """
    process.schedule.sampling_timesteps(steps)
    makers: dict[str, Any] = {"ddpm": DDPM, "ddim": DDIM}
    if name in makers:
        maker, given = makers[name], options
    else:
        scheduler, config = _diffusers_scheduler(name)
        maker = DiffusersSampler
        given = options | {"scheduler": scheduler, "config": config | options.get("config", {})}
    allowed = {"threshold", "percentile"} | set(inspect.signature(maker.__init__).parameters)
    for option in given:
        if option not in allowed:
            raise ContractError(f"sampler {name!r} has no option {option!r}.")
    return maker(process, steps, **given)


def _diffusers_scheduler(name: str) -> tuple[str, dict[str, Any]]:
    if name in DIFFUSERS_SAMPLERS:
        return DIFFUSERS_SAMPLERS[name]
    import diffusers

    if name.endswith("Scheduler") and hasattr(diffusers, name):
        return name, {}
    raise ContractError(f"unknown sampler {name!r}: {nearest(name, SAMPLERS)}")


def _batch_of(t: int, images: Tensor) -> Tensor:
    return torch.full((images.shape[0],), t, dtype=torch.long, device=images.device)
