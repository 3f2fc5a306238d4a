"""Lower bounds of the log-likelihood of images under a variational autoencoder.

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cascade.arguments import whole_number
from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError

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
        samples: number of latents that are drawn for each image.
        std: standard deviation of p(x | z), a normal distribution around the decoded image; 1 is
            that of the objective `autoencoding` with `l2`.

    Returns:
        (B,) nats.

    Raises:
        ContractError: if the network has no distributions of latents, or a number is out of range.
    """
    samples = whole_number("samples", samples, low=1)
    if not std > 0:
        raise ContractError(f"std must be above 0, got {std}.")
    posterior = stage.posterior(batch.images)
    if posterior.log_variance is None:
        raise ContractError(f"{stage.network.kind} has no distributions, and so no likelihood.")
    noise = SeededNoise(batch.seeds, "likelihood", device=batch.images.device)
    mean, variance = posterior.mean.double(), posterior.log_variance.double().exp()
    weights = []
    for _ in range(samples):
        z = posterior.sample(noise.normal(*posterior.mean.shape[1:]))
        decoded = stage.network.decode(z.to(stage.dtype)).double()
        log_p_x = _log_normal(batch.images.double(), decoded, torch.tensor(std**2))
        log_p_z = _log_normal(z.double(), torch.zeros_like(mean), torch.ones_like(mean))
        weights.append(log_p_x + log_p_z - _log_normal(z.double(), mean, variance))
    return torch.logsumexp(torch.stack(weights), dim=0) - math.log(samples)


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance), summed over all but the first dimension: (B,)."""
    each = -0.5 * ((x - mean) ** 2 / variance + variance.log() + LOG_2PI)
    return each.flatten(1).sum(dim=1)
