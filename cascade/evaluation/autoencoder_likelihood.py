"""Bounds of the log-likelihood of images under a variational autoencoder, and its bits.

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from cascade.arguments import whole_number
from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.evaluation.likelihood import LEVELS
from cascade.resizing import quantise

LOG_2PI = math.log(2 * math.pi)


@torch.no_grad()
def log_likelihood_bound(
    stage: AutoencoderStage, batch: Batch, *, samples: int = 1, std: float = 1.0
) -> Tensor:
    """The importance-weighted bound (Burda et al. 2015, arXiv 1509.00519, eq. 8).

    With one sample, its mean is the bound that a variational autoencoder is trained for; with more
    it rises towards log p(x). Images are continuous: bits per dimension of 8-bit images are
    log2 127.5 - bound / (C H W ln 2).

    Args:
        stage: a variational autoencoder.
        batch: images (B, C, H, W) in [-1, 1], and seeds from which latents are drawn.
        samples: number of latents that are drawn for each image, at least 1.
        std: standard deviation of p(x | z), a normal distribution around the decoded image; 1 is
            that of the objective `autoencoding` with `l2`.

    Returns:
        (B,) nats, float64 on the CPU.

    Raises:
        ContractError: if the network has no distributions of latents, or a number is out of range.
    """
    samples = whole_number("samples", samples, low=1)
    if not std > 0:
        raise ContractError(f"std must be above 0, got {std}.")
    check_variational(stage)
    batch = batch.to(stage.device)
    posterior = stage.posterior(batch.images)
    assert posterior.log_variance is not None
    noise = SeededNoise(batch.seeds, "likelihood", device=stage.device)
    mean, variance = _float64(posterior.mean), _float64(posterior.log_variance).exp()
    images = _float64(batch.images)
    weights = []
    for _ in range(samples):
        latents = posterior.sample(noise.normal(*posterior.mean.shape[1:]))
        mean_image = _float64(stage.network.decode(latents.to(stage.dtype)))
        z = _float64(latents)
        log_p_x = _log_normal(images, mean_image, torch.tensor(std**2))
        log_p_z = _log_normal(z, torch.zeros_like(mean), torch.ones_like(mean))
        weights.append(log_p_x + log_p_z - _log_normal(z, mean, variance))
    return torch.logsumexp(torch.stack(weights), dim=0) - math.log(samples)


def autoencoder_bits_per_dimension(
    stage: AutoencoderStage, batch: Batch, *, std: float, samples: int = 1
) -> Tensor:
    """Bound the bits that an autoencoder which draws its own latents needs for images.

    8-bit values become densities by adding uniform noise of one step to them (Theis et al. 2016,
    arXiv 1511.01844).

    Args:
        stage: a variational autoencoder.
        batch: images (B, C, H, W) in [-1, 1], which are rounded to 8 bits. All noise comes from its
            seeds.
        std: see `log_likelihood_bound` and `restored_std`.
        samples: see `log_likelihood_bound`.

    Returns:
        (B,) float64 on the CPU.

    Raises:
        ContractError: if the network has no distributions of latents, or a number is out of range.
    """
    noise = SeededNoise(batch.seeds, "dequantise")
    uniform = (2 * noise.uniform(*batch.images.shape[1:]) - 1) / (LEVELS - 1)
    images = quantise(batch.images.cpu()) + uniform
    nats = log_likelihood_bound(stage, replace(batch, images=images), samples=samples, std=std)
    return math.log2((LEVELS - 1) / 2) - nats / (images[0].numel() * math.log(2))


@torch.no_grad()
def restored_std(stage: AutoencoderStage, batches: Iterable[Batch]) -> float:
    """The standard deviation of p(x | z) under which images are likeliest.

    It is the root mean square of the error of images that are restored from drawn latents (Rybkin
    et al. 2021, arXiv 2006.13202), and at least one step of 8-bit values.

    Args:
        stage: a variational autoencoder.
        batches: images (B, C, H, W) in [-1, 1], and seeds from which latents are drawn.
    """
    squares, count = 0.0, 0
    for batch in batches:
        batch = batch.to(stage.device)
        noise = SeededNoise(batch.seeds, "likelihood", device=stage.device)
        posterior = stage.posterior(batch.images)
        z = posterior.sample(noise.normal(*posterior.mean.shape[1:]))
        error = _float64(stage.network.decode(z.to(stage.dtype))) - _float64(batch.images)
        squares, count = squares + float(error.square().sum()), count + error.numel()
    return max(math.sqrt(squares / max(count, 1)), 2 / (LEVELS - 1))


def check_variational(stage: AutoencoderStage) -> None:
    """Check that an autoencoder has a likelihood.

    Raises:
        ContractError: if its network has no distributions of latents.
    """
    if not stage.network.is_variational:
        raise ContractError(f"{stage.network.kind} has no distributions, and so no likelihood.")


def _float64(numbers: Tensor) -> Tensor:
    """Numbers on the CPU, because not every device has float64."""
    return numbers.cpu().double()


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance), summed over all but the first dimension: (B,)."""
    each = -0.5 * ((x - mean) ** 2 / variance + variance.log() + LOG_2PI)
    return each.flatten(1).sum(dim=1)
