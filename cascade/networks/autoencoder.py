"""Autoencoders: networks that make images smaller and restore them, behind one interface.

`AutoencoderKL` (Rombach et al. 2022, arXiv 2112.10752) and `AutoencoderTiny` are diffusers' own, in
its layout of files. diffusers is imported only where one of them is built.

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size, where H
is f times h.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, final

import torch
from torch import Tensor, nn

from cascade.arguments import check_network_options
from cascade.errors import ContractError, nearest

LOG_VARIANCES = (-30.0, 20.0)  # outside of them, exponentials overflow or gradients vanish
NoiseOf = Callable[[Tensor], Tensor]  # standard normal noise in the shape of a tensor
FOLDER = "vae"  # as in the pipelines of diffusers


class Posterior(NamedTuple):
    """The normal distribution of an image's latents, q(z | x), with independent numbers.

    Attributes:
        mean: (B, c, h, w).
        log_variance: (B, c, h, w); None if the encoder gives the latents themselves.
    """

    mean: Tensor
    log_variance: Tensor | None

    def sample(self, noise: Tensor) -> Tensor:
        """Latents (B, c, h, w) for standard normal noise (B, c, h, w)."""
        if self.log_variance is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """The divergence of each number from N(0, 1), (B, c, h, w), in nats.

        KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - ln s^2) / 2 (Kingma & Welling 2013, arXiv
        1312.6114, appendix B); 0 if there is no distribution.
        """
        if self.log_variance is None:
            return torch.zeros_like(self.mean)
        return 0.5 * (self.mean**2 + self.log_variance.exp() - 1 - self.log_variance)


class Autoencoder(nn.Module, ABC):
    """An encoder and a decoder."""

    kind: ClassVar[str]  # the name in recipes and in `stage.json`

    @property
    @abstractmethod
    def factor(self) -> int:
        """The number f of pixels that one latent covers in each direction."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """The number c of channels of the latents."""

    @property
    @abstractmethod
    def encoder_parts(self) -> list[nn.Module]:
        """The modules whose weights decide the latents."""

    @property
    @abstractmethod
    def is_variational(self) -> bool:
        """Whether the encoder gives distributions of latents."""

    @abstractmethod
    def posterior(self, images: Tensor) -> Posterior:
        """Encode images (B, C, H, W) in [-1, 1]."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, c, h, w) to images (B, C, H, W), which may leave [-1, 1]."""

    def forward(self, images: Tensor, noise: NoiseOf) -> tuple[Posterior, Tensor]:
        """Encode images and restore them from latents that are drawn.

        Args:
            images: (B, C, H, W) in [-1, 1].
            noise: makes the noise from which latents are drawn.

        Returns:
            The posterior and the restored images (B, C, H, W).
        """
        posterior = self.posterior(images)
        latents = posterior.mean
        if posterior.log_variance is not None:
            latents = posterior.sample(noise(posterior.mean))
        return posterior, self.decode(latents.to(images.dtype))


class DiffusersAutoencoder(Autoencoder):
    """An autoencoder of diffusers.

    Args:
        model: the model, which is saved in diffusers' layout.
    """

    saved_as: ClassVar[str]  # name of diffusers' class

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @classmethod
    def model_class(cls) -> Any:
        """diffusers' class."""
        import diffusers

        return getattr(diffusers, cls.saved_as)

    @classmethod
    @abstractmethod
    def build(cls, image_channels: int, **options: Any) -> DiffusersAutoencoder:
        """Make an untrained network; the keywords are the keys of its recipe section."""

    @property
    def latent_channels(self) -> int:
        return self.model.config.latent_channels

    @property
    def image_channels(self) -> int:
        """The number C of channels of an image."""
        return self.model.config.in_channels

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass, which saves memory and costs time."""
        self.model.enable_gradient_checkpointing()


@final
class KLAutoencoder(DiffusersAutoencoder):
    """diffusers' `AutoencoderKL`: a variational autoencoder of residual blocks."""

    kind = "autoencoder_kl"
    saved_as = "AutoencoderKL"

    @classmethod
    def build(
        cls,
        image_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 128),
        blocks: int = 1,
        latent_channels: int = 4,
        attention: bool = False,
        norm_groups: int = 8,
    ) -> KLAutoencoder:
        """Make an untrained network.

        Args:
            image_channels: number C of channels of an image.
            channels: channels of the levels, the largest images first; each further level halves
                the size.
            blocks: number of residual blocks of a level of the encoder; the decoder has one more.
            latent_channels: number c of channels of the latents.
            attention: whether the coarsest level has self-attention, so that the network knows
                only the size that it was trained on.
            norm_groups: number of groups of channels that are normalised together.
        """
        _check_groups(channels, norm_groups)
        count = len(channels)
        model = cls.model_class()(
            in_channels=image_channels,
            out_channels=image_channels,
            down_block_types=["DownEncoderBlock2D"] * count,
            up_block_types=["UpDecoderBlock2D"] * count,
            block_out_channels=list(channels),
            layers_per_block=blocks,
            latent_channels=latent_channels,
            norm_num_groups=norm_groups,
            mid_block_add_attention=attention,
        )
        return cls(model)

    @property
    def factor(self) -> int:
        return 2 ** (len(self.model.config.block_out_channels) - 1)

    @property
    def encoder_parts(self) -> list[nn.Module]:
        parts = [self.model.encoder, self.model.quant_conv]
        return [each for each in parts if each is not None]

    @property
    def is_variational(self) -> bool:
        return True

    def posterior(self, images: Tensor) -> Posterior:
        moments = self.model.encode(images).latent_dist.parameters.float()  # (B, 2 c, h, w)
        mean, log_variance = moments.chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(*LOG_VARIANCES))

    def decode(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents).sample


@final
class TinyAutoencoder(DiffusersAutoencoder):
    """diffusers' `AutoencoderTiny`: a small autoencoder without distributions."""

    kind = "autoencoder_tiny"
    saved_as = "AutoencoderTiny"

    @classmethod
    def build(
        cls,
        image_channels: int,
        *,
        width: int = 64,
        levels: int = 3,
        blocks: int = 1,
        latent_channels: int = 4,
    ) -> TinyAutoencoder:
        """Make an untrained network.

        Args:
            image_channels: number C of channels of an image.
            width: channels of all levels.
            levels: how often the size is halved.
            blocks: number of residual blocks of a level.
            latent_channels: number c of channels of the latents.
        """
        count = levels + 1
        model = cls.model_class()(
            in_channels=image_channels,
            out_channels=image_channels,
            encoder_block_out_channels=[width] * count,
            decoder_block_out_channels=[width] * count,
            num_encoder_blocks=[blocks] * count,
            num_decoder_blocks=[blocks] * count,
            latent_channels=latent_channels,
        )
        return cls(model)

    @property
    def factor(self) -> int:
        return 2 ** (len(self.model.config.encoder_block_out_channels) - 1)

    @property
    def encoder_parts(self) -> list[nn.Module]:
        return [self.model.encoder]

    @property
    def is_variational(self) -> bool:
        return False

    def posterior(self, images: Tensor) -> Posterior:
        return Posterior(self.model.encode(images).latents.float(), None)

    def decode(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents).sample


AUTOENCODERS: dict[str, type[DiffusersAutoencoder]] = {
    each.kind: each for each in (KLAutoencoder, TinyAutoencoder)
}


def build_autoencoder(kind: str, image_channels: int, options: Mapping[str, Any]) -> Autoencoder:
    """Make an untrained autoencoder.

    Args:
        kind: `autoencoder_kl` or `autoencoder_tiny`.
        image_channels: number C of channels of an image.
        options: further keyword arguments of its `build`.

    Raises:
        ContractError: for an unknown kind or option, or options that do not fit together.
    """
    if kind not in AUTOENCODERS:
        raise ContractError(f"unknown autoencoder {kind!r}: {nearest(kind, AUTOENCODERS)}")
    build = AUTOENCODERS[kind].build
    check_network_options(options, build)
    return build(image_channels, **options)


def _check_groups(channels: Sequence[int], norm_groups: int) -> None:
    for each in channels:
        if each % norm_groups:
            raise ContractError(
                f"channels must be multiples of norm_groups {norm_groups}, got {each}."
            )
