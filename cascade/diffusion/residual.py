"""Predict only what a conditioning image lacks of the result, with EDM's preconditioning.

EDM (Karras et al. 2022, arXiv 2206.00364, section 5) skips the network with the best linear guess
of the clean image from the noisy one, so that the network's own output always has variance 1. Here
that guess also uses the conditioning image: x0 = base + r, where `base` is the conditioning image
at the result's size and r what it lacks, with a known standard deviation. At low noise, the fine
detail of x_t reaches the result without passing through the network; at high noise, `base` does.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cascade.arguments import real_number
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import RecipeError


@dataclass(frozen=True)
class Residual:
    """The best linear guess of x0 from x_t and base, and what the network adds to it.

    With r ~ N(0, std^2): E[x0 | x_t] = base + k (x_t - alpha base), k = alpha std^2 / v, with
    v = alpha^2 std^2 + sigma^2, and its standard deviation is std sigma / sqrt(v).

    Args:
        schedule: the noise schedule.
        std: root mean square of x0 - base over the training images, above 0.

    Raises:
        RecipeError: if `std` is not above 0 and finite.
        ContractError: if it is no number.
    """

    schedule: NoiseSchedule
    std: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", real_number("residual_std", self.std))
        if not 0 < self.std < math.inf:
            raise RecipeError(f"residual_std must be above 0, and finite, got {self.std}.")

    def network_input(self, x_t: Tensor, base: Tensor, t: Tensor) -> Tensor:
        """The network's input in place of x_t, with variance 1; all (B, C, H, W), t (B,)."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        return (x_t - alpha * base) / (alpha**2 * self.std**2 + sigma**2).sqrt()

    def x0(self, output: Tensor, x_t: Tensor, base: Tensor, t: Tensor) -> Tensor:
        """The clean image that an output of the network implies; all (B, C, H, W), t (B,)."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        variance = alpha**2 * self.std**2 + sigma**2
        guess = base + alpha * self.std**2 / variance * (x_t - alpha * base)
        return guess + self.std * sigma / variance.sqrt() * output

    def weight(self, t: Tensor) -> Tensor:
        """The weight with which a squared error of x0 equals that of the output: (B, 1, 1, 1)."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        return (alpha**2 * self.std**2 + sigma**2) / (self.std * sigma) ** 2
