"""Steps of samplers as functions of an explicit pair (t, t_prev), to more noise, and Langevin's.

DDPM: Ho et al. 2020 (arXiv 2006.11239, eqs. 6-7), for any stride as in Nichol & Dhariwal 2021
(arXiv 2102.09672, eq. 19). DDIM: Song et al. 2021 (arXiv 2010.02502, eqs. 12 and 16). Reverse SDE
and Langevin dynamics: Song et al. 2021 (arXiv 2011.13456, eq. 6 and algorithm 5).
`t_prev = -1` is the clean image, where alpha_bar is 1: x0 is returned, and no noise is added.

Shapes: all images (B, C, H, W).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion.variance import interpolate_log_variance

Variance = Literal["small", "large"]


def ddpm_step(
    schedule: NoiseSchedule,
    x_t: Tensor,
    x0: Tensor,
    t: int,
    t_prev: int,
    noise: Tensor | None,
    *,
    variance: Variance = "small",
    learned: Tensor | None = None,
) -> Tensor:
    """Draw from the posterior q(x_prev | x_t, x0).

    Args:
        schedule: the noise schedule.
        x_t: the noisy image at t.
        x0: the predicted clean image, already thresholded.
        t: timestep of x_t.
        t_prev: timestep to go to, below t; -1 for the clean image.
        noise: standard normal; may be None at the last step.
        variance: that of the posterior (`small`) or beta (`large`).
        learned: a learned variance instead, from -1 (`small`) to 1 (`large`).

    Returns:
        x at t_prev.
    """
    if t_prev < 0:
        return x0
    assert noise is not None, "only the last step adds no noise"
    alpha_bar, before = schedule.alpha_bar_at(t), schedule.alpha_bar_at(t_prev)
    beta = 1 - alpha_bar / before
    from_x0 = math.sqrt(before) * beta / (1 - alpha_bar)
    from_x_t = math.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar)
    small = beta * (1 - before) / (1 - alpha_bar)
    std: Tensor | float = math.sqrt(small if variance == "small" else beta)
    if learned is not None:
        bounds = torch.tensor([small, beta], device=x_t.device).log()
        std = (0.5 * interpolate_log_variance(learned, bounds[0], bounds[1])).exp()
    return from_x0 * x0 + from_x_t * x_t + std * noise


def forward_step(schedule: NoiseSchedule, x: Tensor, t_prev: int, t: int, noise: Tensor) -> None:
    """Draw from q(x_t | x_prev), in place: the opposite direction of the other steps.

    Args:
        schedule: the noise schedule.
        x: the image at t_prev, which becomes that at t.
        t_prev: timestep of x; -1 for the clean image.
        t: timestep to go to, above t_prev.
        noise: standard normal.
    """
    kept = schedule.alpha_bar_at(t) / schedule.alpha_bar_at(t_prev)
    x.mul_(math.sqrt(kept)).add_(noise, alpha=math.sqrt(1 - kept))


def ddim_step(
    schedule: NoiseSchedule,
    x0: Tensor,
    eps: Tensor,
    t: int,
    t_prev: int,
    noise: Tensor | None,
    *,
    eta: float = 0.0,
) -> Tensor:
    """Take the implicit step of DDIM.

    Args:
        schedule: the noise schedule.
        x0: the predicted clean image, already thresholded.
        eps: the noise in x_t for this x0, so derived again after thresholding.
        t: timestep of x_t.
        t_prev: timestep to go to, below t; -1 for the clean image.
        noise: standard normal; may be None where eta is 0 and at the last step.
        eta: 0 is deterministic, 1 has the variance of DDPM's posterior; beyond the value at which
            all noise at t_prev is fresh, it changes nothing.

    Returns:
        x at t_prev.
    """
    if t_prev < 0:
        return x0
    alpha_bar, before = schedule.alpha_bar_at(t), schedule.alpha_bar_at(t_prev)
    variance = eta**2 * (1 - before) / (1 - alpha_bar) * (1 - alpha_bar / before)
    variance = min(variance, 1 - before)  # there is no more noise at t_prev
    along_eps = math.sqrt(1 - before - variance)
    x_prev = math.sqrt(before) * x0 + along_eps * eps
    return x_prev if noise is None or eta == 0 else x_prev + math.sqrt(variance) * noise


def euler_maruyama_step(
    schedule: NoiseSchedule, x_t: Tensor, x0: Tensor, t: int, t_prev: int, noise: Tensor | None
) -> Tensor:
    """Take a step of the reverse SDE dx = -(beta / 2 x + beta score) dt + sqrt(beta) dw.

    The integral of beta over the step is taken as 1 - alpha_bar_t / alpha_bar_prev, that of DDPM's
    forward step. It agrees with the exact one to first order, as the method does, and is at most 1
    even where the SNR is zero.

    Args:
        schedule: the noise schedule.
        x_t: the noisy image at t.
        x0: the predicted clean image, already thresholded.
        t: timestep of x_t.
        t_prev: timestep to go to, below t; -1 for the clean image.
        noise: standard normal; may be None at the last step.

    Returns:
        x at t_prev.
    """
    if t_prev < 0:
        return x0
    assert noise is not None, "only the last step adds no noise"
    alpha_bar = schedule.alpha_bar_at(t)
    beta = 1 - alpha_bar / schedule.alpha_bar_at(t_prev)
    score = (math.sqrt(alpha_bar) * x0 - x_t) / (1 - alpha_bar)
    return x_t + beta * (x_t / 2 + score) + math.sqrt(beta) * noise


def langevin_step(
    schedule: NoiseSchedule,
    x_t: Tensor,
    x0: Tensor,
    t: int,
    noise: Tensor,
    *,
    signal_to_noise: float,
) -> Tensor:
    """Take a step of Langevin dynamics, x + e score + sqrt(2 e) noise, at one noise level.

    Song et al. choose e = 2 (r |noise| / |score|)^2 for a signal-to-noise ratio r, and average both
    norms over the batch. Here both are the expected ones for independent pixels, whose ratio is
    sigma: e = 2 (r sigma)^2. So no image depends on its batch mates, and no pixel on the rest of
    its image, which may come in tiles. It is also the rule of annealed Langevin dynamics (Song &
    Ermon 2019, arXiv 1907.05600, algorithm 1).

    Args:
        schedule: the noise schedule.
        x_t: the noisy image at t.
        x0: the predicted clean image, already thresholded.
        t: timestep of x_t.
        noise: standard normal.
        signal_to_noise: the ratio r, in (0, 1).

    Returns:
        Another x at t.
    """
    alpha_bar = schedule.alpha_bar_at(t)
    drift = 2 * signal_to_noise**2 * (math.sqrt(alpha_bar) * x0 - x_t)  # e score
    return x_t + drift + 2 * signal_to_noise * math.sqrt(1 - alpha_bar) * noise
