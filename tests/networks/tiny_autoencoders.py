"""Autoencoders for tests: the identity, and a linear one with closed forms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cascade.autoencoder_stage import AutoencoderStage
from cascade.networks.autoencoder import Autoencoder, Posterior
from cascade.space import Space


class IdentityAutoencoder(Autoencoder):
    """Gives images back as latents."""

    kind = "identity"
    factor = 1
    latent_channels = 0  # each instance has its own
    is_variational = False

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.latent_channels = channels
        self.weight = nn.Parameter(torch.ones(1))  # so that the stage has a device

    @property
    def encoder_parts(self) -> list[nn.Module]:
        return [self]

    def posterior(self, images: Tensor) -> Posterior:
        return Posterior(images, None)

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class LinearAutoencoder(Autoencoder):
    """q(z | x) = N(V (x - b), diag(exp(s))) and decoding W z + b, for images of 1 px."""

    kind = "linear"
    factor = 1
    latent_channels = 0  # each instance has its own
    is_variational = True

    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        generator = torch.Generator().manual_seed(0)
        self.encoder = nn.Parameter(
            0.3 * torch.randn(latent_channels, channels, generator=generator)
        )
        self.decoder = nn.Parameter(
            0.3 * torch.randn(channels, latent_channels, generator=generator)
        )
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_variance = nn.Parameter(torch.zeros(latent_channels))

    @property
    def encoder_parts(self) -> list[nn.Module]:
        return [self]

    def posterior(self, images: Tensor) -> Posterior:
        mean = (images.flatten(1) - self.bias) @ self.encoder.T
        log_variance = self.log_variance.expand_as(mean)
        return Posterior(mean[..., None, None], log_variance[..., None, None])

    def decode(self, latents: Tensor) -> Tensor:
        return (latents.flatten(1) @ self.decoder.T + self.bias)[..., None, None]


def linear_stage(channels: int, latent_channels: int) -> AutoencoderStage:
    """A linear variational autoencoder of vectors."""
    space = Space(size_px=1, channels=channels, kind="embeddings")
    return AutoencoderStage.of_network(LinearAutoencoder(channels, latent_channels), space)
