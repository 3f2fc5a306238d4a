"""Any scheduler of diffusers as a sampler, with our noise schedule, thresholding and timesteps.

It receives v predictions of thresholded images: every scheduler understands v, and unlike eps, v
determines the image where the SNR is zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from cascade.devices import is_out_of_memory
from cascade.diffusion.noise import NoiseSource
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import LARGEST_BETA
from cascade.errors import ContractError, first_line, nearest
from cascade.sampling.samplers.sampler import Sampler, batch_of
from cascade.sampling.samplers.scheduler_trial import check_scheduler
from cascade.sampling.samplers.strip_memory import StripMemory
from cascade.sampling.thresholding import Thresholding

OURS = (  # values of a scheduler that follow from the stage
    "self",
    "num_train_timesteps",
    "trained_betas",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
)
BY_PIXEL = (  # schedulers that draw no noise and let no pixel depend on another one
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
)
WHOLE_CANVASES = 6  # that a step of a whole canvas holds at a time, at most
STEP_INPUTS = ("self", "model_output", "timestep", "sample")  # what every `step` needs


@dataclass(frozen=True, kw_only=True)
class DiffusersOptions:
    """Options of a scheduler of diffusers.

    Attributes:
        config: further values of its configuration, such as `{"solver_order": 3}`.

    Raises:
        ContractError: if `config` is not a mapping.
    """

    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.config, Mapping):
            raise ContractError(f"config must be a mapping, got {self.config!r}.")


@final
class DiffusersSampler(Sampler):
    """A scheduler of diffusers.

    Args:
        process: noise schedule and prediction of the stage.
        steps: number of timesteps to visit; second-order schedulers call the network more often.
        thresholding: how predicted images are kept in range; default: static.
        options: further configuration of the scheduler; default: none.
        scheduler: name of a class of diffusers, such as `UniPCMultistepScheduler`.

    Raises:
        ContractError: if the scheduler cannot use the stage's noise schedule or number of steps,
            has no such setting, or fails in a trial walk, see `check_scheduler`.
    """

    Options = DiffusersOptions
    options: DiffusersOptions

    def __init__(
        self,
        process: NoiseProcess,
        steps: int,
        thresholding: Thresholding | None = None,
        options: object | None = None,
        *,
        scheduler: str,
    ) -> None:
        super().__init__(process, steps, thresholding, options)
        import diffusers

        # Betas instead of a named schedule: several schedulers have no zero terminal SNR, and at an
        # SNR of exactly zero, where beta is 1, their sigmas would be infinite.
        config = {
            "num_train_timesteps": process.schedule.train_steps,
            "trained_betas": process.schedule.betas.clamp(max=LARGEST_BETA).tolist(),
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "clip_sample": False,  # images are thresholded here
            **self.options.config,
        }
        scheduler_class = getattr(diffusers, scheduler)
        _check_usable(scheduler_class)
        keys = _parameters(scheduler_class.__init__)
        for key in self.options.config:
            if key in OURS:
                raise ContractError(f"{key!r} of a scheduler follows from the stage; leave it out.")
            if key not in keys:
                known = [each for each in keys if each not in OURS]
                raise ContractError(f"{scheduler} has no setting {key!r}: {nearest(key, known)}")
        try:
            self.scheduler = scheduler_class(**{k: v for k, v in config.items() if k in keys})
            self.scheduler.set_timesteps(steps)
            lowest = min(self.timesteps)
        except Exception as error:  # schedulers raise many kinds, from bad options to few steps
            further = f" and {dict(self.options.config)}" if self.options.config else ""
            raise ContractError(
                f"diffusers' {scheduler} does not take {steps} steps{further} "
                f"({first_line(error)}); use others, or another sampler."
            ) from error
        self._memory = StripMemory(self.scheduler)
        self._shape: Sequence[int] = ()  # of the canvas
        if lowest < 0:  # float arithmetic in diffusers counted one step too many
            total = process.schedule.train_steps
            raise ContractError(
                f"diffusers' {scheduler} cannot space {steps} of {total} timesteps evenly; use "
                f"another number of steps, such as one that divides {total}."
            )
        check_scheduler(self, scheduler)

    @property
    def timesteps(self) -> list[int]:
        return [round(float(t)) for t in self.scheduler.timesteps]

    @property
    def by_strips(self) -> bool:
        config = self.scheduler.config
        draws = str(config.get("algorithm_type")).startswith("sde-")
        is_by_pixel = type(self.scheduler).__name__ in BY_PIXEL and not config.get("thresholding")
        return super().by_strips and is_by_pixel and not draws

    @property
    def canvases(self) -> int:
        order = self.scheduler.config.get("solver_order", 1)
        return order + 1 if self.by_strips else WHOLE_CANVASES

    def start(self, noise: Tensor) -> Tensor:
        self._shape = noise.shape
        return noise * float(self.scheduler.init_noise_sigma)

    def noised(self, x0: Tensor, noise: Tensor, index: int) -> Tensor:
        self._turn_to(index)
        moment = self.scheduler.timesteps[index].expand(x0.shape[0])
        return self.scheduler.add_noise(x0, noise, moment.to(x0.device))

    def network_input(self, state: Tensor, index: int) -> Tensor:
        self._turn_to(index)
        return self.scheduler.scale_model_input(state, self.scheduler.timesteps[index])

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        prediction, _ = self.process.split(output)
        x_t = self.network_input(state, index)
        t = batch_of(self.timesteps[index], state)
        x0 = self.predicted_x0(prediction, x_t, t)
        alpha, sigma = self.process.schedule.alpha_sigma(t)
        v = alpha * self.process.eps(x0, x_t, t) - sigma * x0
        if index == len(self.scheduler.timesteps) - 1:  # some would stop at timestep 0, or fail
            return x0, x0
        if noise.rows == slice(None):
            return self._moved(v, state, index, noise), x0
        with self._memory.strip(index, noise.rows, self._shape):
            return self._moved(v, state, index, noise), x0

    def _turn_to(self, index: int) -> None:
        """Let the scheduler know where it is; some walks visit a timestep more than once."""
        self._memory.turn_to(index)
        begins = getattr(self.scheduler, "set_begin_index", None)
        if begins is not None and self.scheduler.step_index is None:
            begins(index)

    def _moved(self, v: Tensor, state: Tensor, index: int, noise: NoiseSource) -> Tensor:
        """The scheduler's next state.

        Raises:
            ContractError: if it draws noise, which has a temperature only in samplers of our own,
                or if it fails, as its arithmetic may in float32.
        """
        name, total = type(self.scheduler).__name__, len(self.scheduler.timesteps)
        takes_generator = "generator" in _parameters(self.scheduler.step)
        extra = {"generator": noise.generators} if takes_generator else {}
        before = noise.generators[0].get_state()
        try:
            moved = self.scheduler.step(v, self.scheduler.timesteps[index], state, **extra)
        except Exception as error:  # schedulers raise many kinds
            if is_out_of_memory(error):
                raise
            raise ContractError(
                f"diffusers' {name} failed in step {index + 1} of {total} ({type(error).__name__}: "
                f"{first_line(error)}); use another number of steps, or another sampler."
            ) from error
        is_drawn = not before.equal(noise.generators[0].get_state())
        if is_drawn and noise.temperature != 1:
            raise ContractError(
                f"{name} adds noise at temperature 1 only, got {noise.temperature}; use ddim or "
                "ddpm, or a sampler that adds none."
            )
        is_lost = not torch.isfinite(moved.prev_sample).all()  # ancestral ones take roots near zero
        if is_lost and torch.isfinite(v).all():
            raise ContractError(
                f"{name} computed NaN in step {index + 1} of {total}; use another number of steps, "
                "or ddpm."
            )
        return moved.prev_sample


def _check_usable(scheduler_class: type) -> None:
    """Check that a scheduler takes the stage's noise schedule, and steps as the others do.

    Raises:
        ContractError: if it does not.
    """
    fits = {"trained_betas", "prediction_type"} <= set(_parameters(scheduler_class.__init__))
    if not fits or _needed(scheduler_class.step) != STEP_INPUTS:
        raise ContractError(
            f"{scheduler_class.__name__} cannot use the stage's noise schedule, or needs a package "
            "that is not installed; use another sampler, such as ddim or unipc."
        )


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _needed(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters without default."""
    parameters = _parameters(function).items()
    return tuple(name for name, each in parameters if each.default is each.empty)
