"""Autoencoding: an autoencoder learns to restore images, and its latents to be likely.

The loss of an image is that of a variational autoencoder (Kingma & Welling 2013, arXiv 1312.6114),
sum over pixels of the error + beta * sum over latents of the divergence from N(0, 1), divided by
the number of its pixel values, plus a distance in the features of a frozen network (as in Rombach
et al. 2022, arXiv 2112.10752). Both sums are over one image, so that beta means what it means in
the papers: 1 is the lower bound of the likelihood, for `l2` with a variance of 1 and for `l1` with
Laplace's distribution of scale 1 (beta-VAE, Higgins et al. 2017).

In the later part of a run, a discriminator may learn beside the stage to tell reconstructed images
from true ones, and the stage to deceive it. The measured loss leaves out their terms, because they
have no fixed meaning: they depend on what the discriminator has learned.

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size.
"""

from __future__ import annotations

import math
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor

from cascade.arguments import real_number, shown
from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.data.fitting import as_float
from cascade.data.training_images import TrainingImages, epoch_order
from cascade.devices import Precision, autocast
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.networks.autoencoder import Posterior
from cascade.networks.patch_discriminator import PatchDiscriminator, check_size
from cascade.networks.perceptual import Distance, PerceptualKind, check_distance, load_distance
from cascade.stage import Stage
from cascade.training.objectives.adversarial import deceiving_loss, discerned, discerning_loss
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
        adversarial_weight: weight of the discriminator's mean logit in the stage's loss, at least
            0; 0 for no discriminator.
        adversarial_start: share of the run after which the discriminator begins, in [0, 1).

    Raises:
        ContractError: if a value is of the wrong kind or out of range.
    """

    def __init__(
        self,
        *,
        reconstruction: Reconstruction = "l1",
        beta: float = 1e-6,
        perceptual: PerceptualKind = "none",
        perceptual_weight: float = 1.0,
        adversarial_weight: float = 0.0,
        adversarial_start: float = 0.5,
    ) -> None:
        if reconstruction not in get_args(Reconstruction):
            raise ContractError(f"reconstruction must be l1 or l2, got {shown(reconstruction)}.")
        check_distance(perceptual)
        beta = _as_weight("beta", beta)
        perceptual_weight = _as_weight("perceptual_weight", perceptual_weight)
        adversarial_weight = _as_weight("adversarial_weight", adversarial_weight)
        adversarial_start = real_number("adversarial_start", adversarial_start)
        if not 0 <= adversarial_start < 1:
            raise ContractError(
                f"adversarial_start must be at least 0 and below 1, got {adversarial_start}."
            )
        self.reconstruction = reconstruction
        self.beta = beta
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.adversarial_weight = adversarial_weight
        self.adversarial_start = adversarial_start
        self._distance: Distance | None = None
        self._discriminator: PatchDiscriminator | None = None
        self._has_begun = False  # to train it

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
        if self.adversarial_weight > 0:
            check_size(stage.space.size)

    def begin(self, stage: Stage, device: torch.device) -> None:
        self._distance = load_distance(self.perceptual, device)
        if self.adversarial_weight > 0:
            with torch.random.fork_rng(devices=()):  # all else draws as without it
                torch.default_generator.manual_seed(torch.initial_seed())  # in all processes
                self._discriminator = PatchDiscriminator(stage.space.channels).to(device)

    @property
    def learned(self) -> PatchDiscriminator | None:
        """The discriminator; None without one, and before `begin`."""
        return self._discriminator

    def set_progress(self, share: float) -> None:
        self._has_begun = share >= self.adversarial_start

    @property
    def course(self) -> str:
        learns = self._discriminator is not None and self._has_begun
        return "the discriminator learns" if learns else ""

    def identity(self) -> dict[str, Any]:
        values = {
            "reconstruction": self.reconstruction,
            "beta": self.beta,
            "perceptual": self.perceptual,
            "perceptual_weight": self.perceptual_weight,
        }
        if self.adversarial_weight == 0:
            return values
        return values | {
            "adversarial_weight": self.adversarial_weight,
            "adversarial_start": self.adversarial_start,
        }

    # ---- the loss -------------------------------------------------------------------------------

    def loss(self, stage: Stage, batch: Batch) -> Tensor:
        assert isinstance(stage, AutoencoderStage)
        stage.space.check(batch.images)
        restored, posterior = restore(stage, batch)
        error = self.error(restored, batch.images)
        loss = (error + self.beta * posterior.kl().flatten(1).sum(dim=1)) / batch.images[0].numel()
        if self._distance is not None:
            loss = loss + self.perceptual_weight * self._distance(restored, batch.images).float()
        if self._discriminator is None or not stage.training:
            return loss
        check_size((batch.images.shape[-2], batch.images.shape[-1]))  # at once, before it begins
        if not self._has_begun:
            return loss
        return (
            loss
            + self.adversarial_weight * deceiving_loss(self._discriminator, restored)
            + discerning_loss(self._discriminator, restored, batch.images)
        )

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
            `latent_mean` and `latent_std` before shift and scale; and as soon as a discriminator
            learns, `discerned_true` and `discerned_restored`, the shares of patches that it takes
            for what they are.
        """
        assert isinstance(stage, AutoencoderStage)
        square = ((samples.to(batch.images) - batch.images) / 2).square().flatten(1).mean(dim=1)
        posterior = stage.posterior(batch.images, precision=precision)
        values = {
            "psnr": float(-10 * square.clamp(min=1e-10).log10().mean()),
            "latent_mean": float(posterior.mean.mean()),
            "latent_std": float(posterior.mean.std(correction=0)),
        }
        if self._discriminator is not None and self._has_begun:
            with autocast(stage.device, precision):
                values |= discerned(self._discriminator, samples.to(batch.images), batch.images)
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


def _as_weight(name: str, value: Any) -> float:
    weight = real_number(name, value)
    if not (math.isfinite(weight) and weight >= 0):
        raise ContractError(f"{name} must be a number of at least 0, got {weight}.")
    return weight


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
