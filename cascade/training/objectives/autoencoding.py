"""Autoencoding: an autoencoder learns to restore images, and its latents to be likely.

The loss of an image is that of a variational autoencoder (Kingma & Welling 2013, arXiv 1312.6114),
sum over pixels of the error + beta * sum over latents of the divergence from N(0, 1), divided by
the number of its pixel values, plus a distance in the features of a frozen network (as in Rombach
et al. 2022, arXiv 2112.10752). Both sums are over one image, so that beta means what it means in
the papers: 1 is the lower bound of the likelihood, for `l2` with a variance of 1 and for `l1` with
Laplace's distribution of scale 1 (beta-VAE, Higgins et al. 2017).

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size.
"""

from __future__ import annotations

import math
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.data.fitting import as_float
from cascade.data.training_images import TrainingImages, epoch_order
from cascade.devices import Precision
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.networks.autoencoder import Posterior
from cascade.networks.perceptual import Distance, PerceptualKind, load_distance
from cascade.stage import Stage
from cascade.training.objectives.objective import Objective

Reconstruction = Literal["l1", "l2"]
DEAD_NATS = 0.01  # below it, a latent hardly depends on the image
MEASURED_IMAGES = 256  # whose latents decide shift and scale; a stopped run measures them too
MEASURED_AT_A_TIME = 8


@final
class Autoencoding(Objective):
    """The error of restored images, and the divergence of their latents from N(0, 1).

    Args:
        reconstruction: `l1` for the absolute error, `l2` for half the squared error.
        beta: weight of the divergence, at least 0; 0 for networks without distributions.
        perceptual: features that restored images are compared by: `efflite0`, `lpips` or `none`.
        perceptual_weight: weight of that distance, at least 0.

    Raises:
        ContractError: if a value is out of range.
    """

    def __init__(
        self,
        *,
        reconstruction: Reconstruction = "l1",
        beta: float = 1e-6,
        perceptual: PerceptualKind = "none",
        perceptual_weight: float = 1.0,
    ) -> None:
        if reconstruction not in get_args(Reconstruction):
            raise ContractError(f"reconstruction must be l1 or l2, got {reconstruction!r}.")
        for name, value in (("beta", beta), ("perceptual_weight", perceptual_weight)):
            if not (math.isfinite(value) and value >= 0):
                raise ContractError(f"{name} must be a number of at least 0, got {value}.")
        self.reconstruction = reconstruction
        self.beta = beta
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self._distance: Distance | None = None

    def check(self, stage: Stage) -> None:
        if not isinstance(stage, AutoencoderStage):
            raise ContractError(
                f"autoencoding trains autoencoder stages, not a {stage.kind} stage."
            )
        if self.beta > 0 and not stage.network.is_variational:
            raise ContractError(
                f"{stage.network.kind} has no distributions of latents; use beta 0."
            )
        if self.perceptual != "none" and stage.space.channels != 3:
            raise ContractError(
                f"perceptual {self.perceptual} compares RGB images, but the stage has "
                f"{stage.space.channels} channels; use perceptual none."
            )

    def begin(self, stage: Stage, device: torch.device) -> None:
        self._distance = load_distance(self.perceptual, device)

    def identity(self) -> dict[str, Any]:
        return {
            "reconstruction": self.reconstruction,
            "beta": self.beta,
            "perceptual": self.perceptual,
            "perceptual_weight": self.perceptual_weight,
        }

    # ---- the loss -------------------------------------------------------------------------------

    def loss(self, stage: Stage, batch: Batch) -> Tensor:
        assert isinstance(stage, AutoencoderStage)
        stage.space.check(batch.images)
        restored, posterior = restore(stage, batch)
        error = self.error(restored, batch.images)
        loss = (error + self.beta * posterior.kl().flatten(1).sum(dim=1)) / batch.images[0].numel()
        if self._distance is None:
            return loss
        return loss + self.perceptual_weight * self._distance(restored, batch.images).float()

    def error(self, restored: Tensor, images: Tensor) -> Tensor:
        """The error (B,) of restored images (B, C, H, W), summed over all pixels and channels."""
        difference = restored.float() - images
        each = difference.abs() if self.reconstruction == "l1" else 0.5 * difference**2
        return each.flatten(1).sum(dim=1)

    # ---- meters and the end of training ---------------------------------------------------------

    @torch.no_grad()
    def meters(
        self, stage: Stage, batch: Batch, samples: Tensor, precision: Precision
    ) -> dict[str, float]:
        """How well images are restored, and how much their latents say.

        Returns:
            `psnr` in dB; `kl`, the mean divergence of an image's latents in nats; `dead_units`,
            the number of latents whose divergence is below 0.01 nats on average over the images;
            `latent_mean` and `latent_std` before shift and scale.
        """
        assert isinstance(stage, AutoencoderStage)
        square = ((samples.to(batch.images) - batch.images) / 2).square().flatten(1).mean(dim=1)
        posterior = stage.posterior(batch.images, precision=precision)
        values = {
            "psnr": float(-10 * square.clamp(min=1e-10).log10().mean()),
            "latent_mean": float(posterior.mean.mean()),
            "latent_std": float(posterior.mean.std(correction=0)),
        }
        if posterior.log_variance is None:
            return values
        return values | {
            "kl": float(posterior.kl().flatten(1).sum(dim=1).mean()),
            "dead_units": float(dead_units(posterior)),
        }

    def finish(self, stage: Stage, images: TrainingImages) -> None:
        """Measure shift and scale of the latents over the training images."""
        assert isinstance(stage, AutoencoderStage)
        stage.contract = stage.scaled(*latent_moments(stage, images)).contract


def restore(stage: AutoencoderStage, batch: Batch) -> tuple[Tensor, Posterior]:
    """Encode and decode a batch with noise from its seeds: (B, C, H, W) and the posterior."""

    def noise(mean: Tensor) -> Tensor:
        return SeededNoise(batch.seeds, "train", device=mean.device).normal(*mean.shape[1:])

    posterior, restored = stage.network(batch.images, noise)
    return restored, posterior


def dead_units(posterior: Posterior) -> int:
    """How many of an image's latents diverge from N(0, 1) by less than 0.01 nats on average."""
    return int((posterior.kl().mean(dim=0) < DEAD_NATS).sum())


@torch.no_grad()
def latent_moments(
    stage: AutoencoderStage, images: TrainingImages, *, most_images: int = MEASURED_IMAGES
) -> tuple[float, float]:
    """Mean and standard deviation of all numbers in the latents of whole training images.

    Sums are kept in float64, and every number counts the same, whatever the batches.

    Args:
        stage: the autoencoder.
        images: the training images, of which the first usable ones of a fixed order are taken.
        most_images: number of images that are enough.
    """
    order = epoch_order(images.seed, 0, len(images.source))
    places = range(min(most_images, len(order)))
    count, total, squares = 0, 0.0, 0.0
    for first in range(0, len(places), MEASURED_AT_A_TIME):
        part = places[first : first + MEASURED_AT_A_TIME]
        whole = [as_float(images.first_usable(order, place).sized.image) for place in part]
        raw = stage.posterior(torch.stack(whole)).mean.cpu().double()
        count += raw.numel()
        total += float(raw.sum())
        squares += float((raw**2).sum())
    mean = total / count
    return mean, math.sqrt(max(0.0, squares / count - mean**2))
