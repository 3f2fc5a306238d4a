"""Learned variances of the DDPM step (Nichol & Dhariwal 2021, arXiv 2102.09672, section 3.1).

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cascade.diffusion.schedule import NoiseSchedule

BIN_HALF_WIDTH = 1 / 255  # half an 8-bit step of an image in [-1, 1]


def interpolate_log_variance(variance: Tensor, log_small: Tensor, log_large: Tensor) -> Tensor:
    """Interpolate a log variance (eq. 15).

    Args:
        variance: (B, C, H, W) output of the network, about in [-1, 1].
        log_small: log variance of the posterior, at -1.
        log_large: log beta, at 1.
    """
    fraction = (variance + 1) / 2
    return fraction * log_large + (1 - fraction) * log_small


def variational_terms(
    schedule: NoiseSchedule, x0: Tensor, x0_hat: Tensor, x_t: Tensor, t: Tensor, variance: Tensor
) -> Tensor:
    """One term of the variational bound at every pixel, in nats.

    Args:
        schedule: the noise schedule.
        x0: clean images (B, C, H, W) in [-1, 1].
        x0_hat: predicted clean images (B, C, H, W), detached, so that only the variance learns from
            the bound.
        x_t: noisy images (B, C, H, W).
        t: (B,) timesteps.
        variance: (B, C, H, W), see `interpolate_log_variance`.

    Returns:
        (B, C, H, W): the KL divergence of the step; at t = 0 the discretised negative
        log-likelihood.
    """
    steps = t.cpu()  # not every device has float64
    alpha_bar = schedule.alpha_bar[steps].view(-1, 1, 1, 1)
    before = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bar[:-1]])[steps]
    before = before.view(-1, 1, 1, 1)
    beta = 1 - alpha_bar / before
    small = beta * (1 - before) / (1 - alpha_bar)
    first_small = schedule.betas[1] * (1 - schedule.alpha_bar[0]) / (1 - schedule.alpha_bar[1])
    log_small, log_large, from_x0, from_x_t = (
        each.float().to(t.device)
        for each in (
            small.clamp(min=float(first_small)).log(),
            beta.log(),
            before.sqrt() * beta / (1 - alpha_bar),
            (1 - beta).sqrt() * (1 - before) / (1 - alpha_bar),
        )
    )
    log_variance = interpolate_log_variance(variance, log_small, log_large)
    true_mean = from_x0 * x0 + from_x_t * x_t
    mean = from_x0 * x0_hat + from_x_t * x_t
    ratio = log_small - log_variance
    kl = 0.5 * (ratio.exp() - 1 - ratio + (true_mean - mean) ** 2 * (-log_variance).exp())
    nll = -_log_probability_of_bin(x0, mean, (0.5 * log_variance).exp())
    return torch.where(t.view(-1, 1, 1, 1) == 0, nll, kl)


def variational_bound(
    schedule: NoiseSchedule, x0: Tensor, x0_hat: Tensor, x_t: Tensor, t: Tensor, variance: Tensor
) -> Tensor:
    """One term of the variational bound (B,), in nats per dimension; see `variational_terms`."""
    return variational_terms(schedule, x0, x0_hat, x_t, t, variance).mean(dim=(1, 2, 3))


def _log_probability_of_bin(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    upper = _normal_cdf((x + BIN_HALF_WIDTH - mean) / std)
    lower = _normal_cdf((x - BIN_HALF_WIDTH - mean) / std)
    upper = torch.where(x > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(x < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp(min=1e-12).log()


def _normal_cdf(z: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(z / math.sqrt(2)))
