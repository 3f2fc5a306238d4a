"""Sampler: one way from noise to images, one call of the network at a time.

Shapes: all images (B, C, H, W).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cascade.diffusion.noise import NoiseSource
from cascade.diffusion.process import NoiseProcess
from cascade.errors import ContractError
from cascade.sampling.steps import forward_step
from cascade.sampling.thresholding import Thresholding


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """A sampler without options of its own."""


@dataclass(frozen=True, kw_only=True)
class ShiftedOptions:
    """Options of samplers whose timesteps can be shifted.

    Attributes:
        timestep_shift: where the timesteps lie, from 0.001 to 1000: above 1, more of them are at
            high noise, and below 1, at low noise (Esser et al. 2024, arXiv 2403.03206, eq. 23).

    Raises:
        ContractError: if it is out of range.
    """

    timestep_shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0.001 <= self.timestep_shift <= 1000:
            raise ContractError(
                f"timestep_shift must be a number from 0.001 to 1000, got {self.timestep_shift!r}; "
                "1 spaces the timesteps evenly."
            )


class Sampler(ABC):
    """A sampler of one batch; it may remember earlier steps, so every batch needs a new one.

    Args:
        process: noise schedule and prediction of the stage.
        steps: number of timesteps to visit.
        thresholding: how predicted images are kept in range; default: static.
        options: an instance of the class's `Options`; default: with its default values.
    """

    Options: ClassVar[type] = NoOptions  # a frozen dataclass; recipes and commands read its fields

    def __init__(
        self,
        process: NoiseProcess,
        steps: int,
        thresholding: Thresholding | None = None,
        options: object | None = None,
    ) -> None:
        self.process = process
        self.steps = steps
        self.thresholding = thresholding or Thresholding()
        self.options = options or self.Options()

    @property
    @abstractmethod
    def timesteps(self) -> list[int]:
        """The timestep of each call of the network, in order."""

    @property
    def by_strips(self) -> bool:
        """Whether steps can be taken strip by strip, because no pixel depends on another one."""
        return self.thresholding.by_pixel

    @property
    def canvases(self) -> int:
        """Number of canvases that it holds during a walk in tiles, besides the images."""
        return 0

    @abstractmethod
    def start(self, noise: Tensor) -> Tensor:
        """Turn standard normal noise into the sampler's first state."""

    @abstractmethod
    def noised(self, x0: Tensor, noise: Tensor, index: int) -> Tensor:
        """The state before call `index` of clean images x0 with this standard normal noise."""

    @abstractmethod
    def network_input(self, state: Tensor, index: int) -> Tensor:
        """The x_t that the network receives in call `index`."""

    @abstractmethod
    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        """Advance by one call of the network.

        Args:
            output: the network's output, with variance channels if they are learned.
            state: the result of `start` or of the last `step`.
            index: number of the call, from 0.
            noise: source of fresh noise.

        Returns:
            The next state and the predicted clean images; the state after the last call is these.
        """

    def predicted_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean images that a prediction implies, thresholded."""
        return self.thresholding.apply(self.process.x0(prediction, x_t, t))


class GridSampler(Sampler, ABC):
    """A sampler of our own: each of its states is an x_t of a training timestep."""

    @property
    @abstractmethod
    def calls_per_step(self) -> int:
        """Number of calls of the network from one timestep to the next."""

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def first_call(self, strength: float) -> int:
        """The index of the first call of a walk that starts from an image.

        Args:
            strength: share of the steps that are taken, in (0, 1].

        Raises:
            ContractError: if the strength is out of range.
        """
        if not 0 < strength <= 1:
            raise ContractError(f"strength must be above 0 and at most 1, got {strength}.")
        step = min(round((1 - strength) * self.steps), self.steps - 1)
        return step * self.calls_per_step

    def noised(self, x0: Tensor, noise: Tensor, index: int) -> Tensor:
        return self.process.schedule.add_noise(x0, noise, batch_of(self.timesteps[index], x0))

    def network_input(self, state: Tensor, index: int) -> Tensor:
        return state


class PairSampler(GridSampler, ABC):
    """A sampler that walks explicit pairs (t, t_prev), with one call of the network for each.

    Its timesteps are evenly spaced, or shifted if its options are `ShiftedOptions`.
    """

    @property
    def timesteps(self) -> list[int]:
        options = self.options
        shift = options.timestep_shift if isinstance(options, ShiftedOptions) else 1.0
        return self.process.schedule.sampling_timesteps(self.steps, shift)

    @property
    def calls_per_step(self) -> int:
        return 1

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(t, t_prev) of every step; the last t_prev is -1, the clean image."""
        timesteps = self.timesteps
        return list(zip(timesteps, [*timesteps[1:], -1], strict=True))

    def take_back(self, state: Tensor, noise: Tensor, index: int, earlier: int) -> None:
        """Add noise to the state before call `index`, in place, as the forward process does.

        Args:
            state: (B, C, H, W); it becomes the state before call `earlier`.
            noise: (B, C, H, W) standard normal noise.
            index: number of a call; the number of all calls stands for the clean images.
            earlier: number of an earlier call.
        """
        t_prev = self.timesteps[index] if index < len(self.timesteps) else -1
        forward_step(self.process.schedule, state, t_prev, self.timesteps[earlier], noise)

    def step(
        self, output: Tensor, state: Tensor, index: int, noise: NoiseSource
    ) -> tuple[Tensor, Tensor]:
        t, t_prev = self.pairs[index]
        prediction, variance = self.process.split(output)
        x0 = self.predicted_x0(prediction, state, batch_of(t, state))
        return self.move(x0, state, (t, t_prev), noise, variance), x0

    @abstractmethod
    def move(
        self,
        x0: Tensor,
        x_t: Tensor,
        pair: tuple[int, int],
        noise: NoiseSource,
        variance: Tensor | None,
    ) -> Tensor:
        """Go from x_t at t to t_prev.

        Args:
            x0: the predicted clean images, thresholded.
            x_t: the noisy images.
            pair: t and t_prev; a t_prev of -1 stands for the clean images.
            noise: source of fresh noise.
            variance: the learned variance, about in [-1, 1]; None if the network learns none.
        """


def batch_of(t: int, images: Tensor) -> Tensor:
    """One timestep for each image of a batch: (B,) int64."""
    return torch.full((images.shape[0],), t, dtype=torch.long, device=images.device)
