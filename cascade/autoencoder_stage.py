"""AutoencoderStage: encodes images as latents, in which other stages work, and decodes these.

In a chain, after a stage that makes latents, it decodes them (Rombach et al. 2022, arXiv
2112.10752). Alone it is a variational autoencoder: it draws latents from N(0, 1) and decodes them
(Kingma & Welling 2013, arXiv 1312.6114).

Shapes: B images, C channels, H and W pixels; c channels of the latents, h and w their size, where H
is f times h.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from cascade.arguments import check_kind
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.latents import Latents
from cascade.contract import Contract
from cascade.devices import Precision, autocast, precision_of_results
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.networks.autoencoder import Autoencoder, Posterior, build_autoencoder
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.walk import changed_by
from cascade.saving.autoencoder_folder import (
    autoencoder_config,
    read_autoencoder_stage,
    read_diffusers_autoencoder,
    write_autoencoder,
)
from cascade.saving.components import weights_digest
from cascade.saving.differences import differences
from cascade.saving.model_card import StageSummary
from cascade.space import Size, Space
from cascade.stage import Run, Stage


@final
class AutoencoderStage(Stage):
    """An encoder and a decoder, and the shift and scale of its latents.

    Args:
        network: the encoder and the decoder.
        contract: the images, with the condition `Latents` alone.

    Raises:
        ContractError: if network and contract do not fit together.
    """

    kind = "autoencoder"

    def __init__(self, network: Autoencoder, contract: Contract) -> None:
        super().__init__(contract)
        self.network = network
        latents = self.latents
        facts = {
            "channels": (network.latent_channels, latents.channels),
            "factor": (network.factor, latents.factor),
        }
        for name, (ours, theirs) in facts.items():
            if ours != theirs:
                raise ContractError(
                    f"the autoencoder makes latents of {name} {ours}, the contract says {theirs}."
                )

    @classmethod
    def of_network(cls, network: Autoencoder, space: Space) -> AutoencoderStage:
        """Make a stage whose latents are not scaled yet; see `scaled`.

        Args:
            network: the encoder and the decoder.
            space: space of the images.

        Raises:
            ContractError: if the sides of the images are no multiples of the network's factor.
        """
        latents = Latents(channels=network.latent_channels, factor=network.factor)
        return cls(network, Contract(space, (latents,)))

    @classmethod
    def build(
        cls,
        space: Space,
        *,
        network: str = "autoencoder_kl",
        network_options: Mapping[str, Any] | None = None,
    ) -> AutoencoderStage:
        """Make a stage with a new, untrained network.

        Args:
            space: space of the images.
            network: `autoencoder_kl` or `autoencoder_tiny`.
            network_options: keyword arguments of the network's `build`.

        Raises:
            ContractError: for an unknown network or option, or if the parts do not fit together.
        """
        module = build_autoencoder(
            network, space.channels, {} if network_options is None else network_options
        )
        return cls.of_network(module, space)

    @property
    def latents(self) -> Latents:
        """The condition that describes the latents.

        Raises:
            ContractError: if the contract has no such condition, or others too.
        """
        condition = self.contract.condition(Latents.name)
        if not isinstance(condition, Latents) or len(self.conditions) != 1:
            raise ContractError("an autoencoder stage has one condition, latents.")
        return condition

    @property
    def latent_space(self) -> Space:
        """The space of the latents, which the stage before this one makes."""
        return self.latents.image_space(self.space)

    @property
    def trunk(self) -> nn.Module:
        return self.network

    # ---- encoding and decoding ------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self,
        images: Tensor,
        seeds: Sequence[int] | None = None,
        *,
        stream: str = "encode",
        precision: Precision = "fp32",
    ) -> Tensor:
        """Make latents of images.

        Args:
            images: (B, C, H, W) in [-1, 1], whose sides are multiples of f pixels.
            seeds: one whole number per image, from which latents are drawn; None for the likeliest
                latents, which are the mean.
            stream: name of the random numbers.
            precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

        Returns:
            (B, c, h, w), shifted and scaled.

        Raises:
            ContractError: if the images do not fit.
        """
        posterior = self.posterior(images, precision=precision)
        raw = posterior.mean
        if seeds is not None:
            if len(seeds) != len(images):
                raise ContractError(f"got {len(seeds)} seeds for {len(images)} images.")
            noise = SeededNoise(seeds, stream, device=raw.device)
            raw = posterior.sample(noise.normal(*raw.shape[1:]))
        return self.latents.normalised(raw)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, precision: Precision = "fp32") -> Tensor:
        """Make images of latents.

        Args:
            latents: (B, c, h, w), shifted and scaled.
            precision: arithmetic of the network: `fp32`, `bf16` or `auto`.

        Returns:
            (B, C, H, W) float32, in [-1, 1] for pixels.

        Raises:
            ContractError: if the latents do not fit.
        """
        self.latent_space.check(latents)
        return self._decode(self.latents.raw(latents.to(self.device).float()), precision)

    def posterior(self, images: Tensor, *, precision: Precision = "fp32") -> Posterior:
        """The distributions of the latents of images (B, C, H, W), before shift and scale.

        Raises:
            ContractError: if the images do not fit.
        """
        self.space.check(images)
        self.latents.check_size((images.shape[-2], images.shape[-1]))
        with autocast(self.device, precision):
            mean, log_variance = self.network.posterior(images.to(self.device, self.dtype))
        return Posterior(mean.float(), None if log_variance is None else log_variance.float())

    def _decode(self, raw: Tensor, precision: Precision) -> Tensor:
        precision = precision_of_results(precision, self.dtype, are_outputs=self.space.has_bands)
        with autocast(self.device, precision):
            images = self.network.decode(raw.to(self.dtype))
        return images.float().clamp(-1, 1) if self.space.is_bounded else images.float()

    def scaled(self, mean: float, std: float) -> AutoencoderStage:
        """Return a stage that shares the weights and gives latents of mean 0 and deviation 1.

        Args:
            mean: mean of all numbers in the latents of the data, before shift and scale.
            std: their standard deviation, above 0.

        Raises:
            ContractError: if `std` is not above 0.
        """
        if not std > 0:
            raise ContractError(
                f"latents must differ to be scaled, got a standard deviation of {std}."
            )
        return self._with_scale(mean, 1 / std)

    def _with_scale(self, shift: float, scale: float) -> AutoencoderStage:
        latents = replace(
            self.latents,
            shift=shift,
            scale=scale,
            encoder=weights_digest(*self.network.encoder_parts),
        )
        other = copy.copy(self)
        other._modules = dict(self._modules)
        other.contract = replace(self.contract, conditions=(latents,))
        return other

    # ---- in a chain -----------------------------------------------------------------------------

    @torch.no_grad()
    def run(
        self,
        seeds: Sequence[int],
        inputs: Inputs | None = None,
        previous: Tensor | None = None,
        run: Run | None = None,
    ) -> Tensor:
        """Decode latents, or draw them from N(0, 1) where there are none.

        Hooks that start from images encode and restore these, whatever their strength: there are no
        steps.
        """
        inputs = Inputs() if inputs is None else inputs
        run = Run() if run is None else run
        check_kind("seeds", seeds, Sized, "a list of whole numbers")
        self._check_run(run)
        self.contract.check_inputs(inputs, previous, len(seeds))
        self.contract.result_size(inputs, previous)
        latents = inputs.get(Latents.input_name) if previous is None else previous
        start = run.hooks.start_from
        if latents is None and start is not None:
            latents = self.encode(start.image, seeds, stream=run.stream, precision=run.precision)
        if latents is not None:
            images = self.decode(latents, precision=run.precision)
        else:
            images = self._decode(self._drawn(seeds, run.stream), run.precision)
        return _reported(images, run)

    def _drawn(self, seeds: Sequence[int], stream: str) -> Tensor:
        """Latents (B, c, h, w) from N(0, 1), before shift and scale."""
        if not self.network.is_variational:
            raise ContractError(
                f"this {self.network.kind} has no distribution of latents to sample from; let a "
                "stage before it make them, or use a variational autoencoder."
            )
        space = self.latent_space
        noise = SeededNoise(seeds, stream, device=self.device)
        return noise.normal(space.channels, *space.size)

    def _check_run(self, run: Run) -> None:
        check_kind("run", run, Run, "Run(...)")
        if run.settings is not None:
            self.check_settings(run.settings)
        if run.tiles is not None or run.hooks.known is not None:
            raise ContractError("an autoencoder stage makes whole images, not tiles or parts.")

    @property
    def sampling(self) -> SamplingSettings:
        """Settings without effect, since there are no steps."""
        return self.contract.default_sampling

    @property
    def has_settings(self) -> bool:
        return False

    def with_sampling(self, settings: SamplingSettings) -> AutoencoderStage:
        self.check_settings(settings)
        return self

    def check_settings(self, settings: SamplingSettings) -> None:
        changes = differences(self.sampling.to_dict(), settings.to_dict())
        if changes:
            raise ContractError(
                f"{changes[0].key}: an autoencoder stage has no steps, so it takes no sampling "
                "settings; leave it out."
            )

    def check_walk(self, *, goes_back: bool, from_image: bool) -> None:
        """Nothing to check: there are no steps, and images that it starts from are encoded."""

    def default_tile_px(self, size_px: Size) -> int:
        """The longer side: images are made whole."""
        return max(size_px)

    def summary(self) -> StageSummary:
        return StageSummary(
            starts_from=self.contract.description,
            gives=self.space.size_text,
            network=self.network.kind,
            parameters=sum(each.numel() for each in self.parameters()),
            predicts="images",
            sampling=None,
        )

    # ---- saving and loading ---------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        return autoencoder_config(self.network, self.contract)

    def write_weights(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        write_autoencoder(self.network, self.latents, folder, dtype=dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> AutoencoderStage:
        """Load a stage that `save_pretrained` wrote, on the CPU, in float32.

        Raises:
            WeightsError: if the folder is missing, incomplete, damaged, or holds another kind of
                stage.
        """
        return read_autoencoder_stage(Path(folder), cls).eval()

    @classmethod
    def from_diffusers(cls, folder: str | Path, space: Space) -> AutoencoderStage:
        """Load an `AutoencoderKL` or `AutoencoderTiny` that diffusers saved, such as a VAE folder.

        Shift and scale are those of its configuration.

        Args:
            folder: the folder with `config.json` and safetensors.
            space: space of the images.

        Raises:
            WeightsError: if a file is missing, damaged, or of another model.
            ContractError: if the network does not fit the space.
        """
        network, shift, scale = read_diffusers_autoencoder(Path(folder))
        return cls.of_network(network, space)._with_scale(shift, scale).eval()


def _reported(images: Tensor, run: Run) -> Tensor:
    """Report one step to the hooks of a run, whose callback may change the images."""
    if run.hooks.progress is not None:
        run.hooks.progress(1, 1)
    if run.hooks.callback is None:
        return images
    return changed_by(run.hooks.callback, 0, 0, images, images)
