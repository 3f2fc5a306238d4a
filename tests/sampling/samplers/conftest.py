"""Data for which the best denoiser is known, and what runs a sampler with any network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Gaussian:
    """Images whose pixels are N(mean, std^2), each on its own.

    The best denoiser is linear in x_t, so that what a sampler makes of every draw can be written
    down: x_t has the mean alpha mean and the variance alpha^2 std^2 + sigma^2.
    """

    mean: float = 0.2
    std: float = 0.3

    def denoiser(self, process: NoiseProcess):
        """The network that a perfect training would give."""

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = process.schedule.alpha_sigma(t)
            gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
            x0 = self.mean + gain * (x_t - alpha * self.mean)
            return process.target(x0, process.eps(x0, x_t, t), t)

        return network

    def flow(self, process: NoiseProcess, x_t: Tensor, t: int) -> Tensor:
        """Where the probability flow takes x_t: each pixel keeps its number of deviations."""
        alpha, sigma = process.schedule.alpha_sigma(torch.tensor([t]))
        spread = (alpha**2 * self.std**2 + sigma**2).sqrt()
        return self.mean + self.std * (x_t - alpha * self.mean) / spread

    def scales(self, schedule: NoiseSchedule, timesteps: list[int]):
        """(alpha, sigma^2, variance of x_t) before and after every step, six numbers each."""
        levels = [schedule.alpha_bar[t].item() for t in timesteps] + [1.0]
        scales = [(math.sqrt(a), 1 - a, a * self.std**2 + 1 - a) for a in levels]
        return [(*here, *after) for here, after in pairwise(scales)]


class UnitDraws:
    """Noise that reads off weights: draw number j is 1 in image j, and 0 in all others."""

    def __init__(self, images: int) -> None:
        self.images, self.draws = images, 0

    def normal(self, *shape: int) -> Tensor:
        self.draws += 1
        noise = torch.zeros(self.images, *shape)
        noise[self.draws] = 1
        return noise


def _run(sampler, network, state, noise):
    predictions = []
    for index, t in enumerate(sampler.timesteps):
        x_t = sampler.network_input(state, index)
        output = network(x_t, torch.full((state.shape[0],), t))
        state, x0 = sampler.step(output, state, index, noise)
        predictions.append(x0)
    return state, predictions


def _some_network(x_t, t):
    return 0.7 * torch.tanh(x_t) + 0.2 * torch.sin(3 * x_t + t.view(-1, 1, 1, 1) / 20)


@pytest.fixture
def gaussian() -> Gaussian:
    """Data for which the best denoiser is known."""
    return Gaussian()


@pytest.fixture
def unit_draws():
    """A function from a number of images to `UnitDraws`."""
    return UnitDraws


@pytest.fixture
def run():
    """A function (sampler, network, state, noise) -> last state, predicted x0 of every step."""
    return _run


@pytest.fixture
def some_network():
    """Any fixed function of the image and the time."""
    return _some_network


@pytest.fixture
def process() -> NoiseProcess:
    """100 timesteps, eps prediction."""
    return NoiseProcess(NoiseSchedule("linear", train_steps=100), prediction="eps")


@pytest.fixture
def fine_process() -> NoiseProcess:
    """1000 timesteps, v prediction."""
    return NoiseProcess(NoiseSchedule("cosine"), prediction="v")
