"""Networks of stages that were imported: of guided diffusion, diffusers and DeepFloyd IF.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Slots
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.networks.adm_unet import ADMUNet
from cascade.networks.backbone_network import BackboneNetwork, NetworkShape
from cascade.networks.embedding import embedding_for
from cascade.networks.stage_network import StageNetwork


@final
class StageADMUNet(BackboneNetwork):
    """The U-Net of guided diffusion as a stage network.

    The embedding of the conditions is added to that of the time, so both have the same length.
    """

    kind = "adm_unet"
    backbone_class = ADMUNet

    @classmethod
    def build(cls, shape: NetworkShape, **options: Any) -> StageADMUNet:
        """Make a new network.

        Args:
            shape: inputs and outputs that the stage needs.
            options: keyword arguments of `ADMUNet`, except the numbers of channels in and out.

        Raises:
            ValueError: if the options do not fit together.
        """
        channels = {"in_channels": shape.in_channels, "out_channels": shape.out_channels}
        unet = ADMUNet(**{**options, **channels})
        embedding = embedding_for(shape.slots, 4 * unet.config["model_channels"])
        return cls(unet, embedding, patch_size=1, size_multiple_px=_multiple(unet.config))


@final
class StageUNet2D(BackboneNetwork):
    """diffusers' `UNet2DModel` as a stage network.

    The embedding of the conditions is added to that of the time (`class_embed_type="identity"`), so
    both have the same length.
    """

    kind = "unet_2d"

    @classmethod
    def build(cls, shape: NetworkShape, **options: Any) -> StageUNet2D:
        """Make a new network.

        Args:
            shape: inputs and outputs that the stage needs.
            options: keyword arguments of `UNet2DModel`; those about classes, sizes and numbers of
                channels in and out follow from the shape.

        Raises:
            ValueError: if the options do not fit together.
        """
        dim = options.get("time_embedding_dim") or 4 * options["block_out_channels"][0]
        embedding = embedding_for(shape.slots, dim)
        own = {
            "sample_size": shape.size,
            "in_channels": shape.in_channels,
            "out_channels": shape.out_channels,
            "num_class_embeds": None,
            "class_embed_type": None if embedding is None else "identity",
        }
        unet = cls.class_of_backbone()(**{**options, **own})
        return cls(unet, embedding, patch_size=1, size_multiple_px=_multiple(options))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        images, inputs = self._backbone_inputs(x_t, signals)
        return self.backbone(images, t, class_labels=inputs["class_labels"]).sample

    @classmethod
    def class_of_backbone(cls) -> type[nn.Module]:
        from diffusers import UNet2DModel

        return UNet2DModel


@final
class DeepFloydUNet(StageNetwork):
    """A U-Net of DeepFloyd IF, which is diffusers' `UNet2DConditionModel` with blocks of its own.

    It attends to all tokens of a text, those of the padding included, as in training. An upsampler
    also receives the timestep of a noise schedule that stands for the noise on its low-resolution
    image: the one whose noise is nearest to the augmentation level.

    Args:
        unet: the U-Net.
    """

    kind = "deepfloyd_unet"

    def __init__(self, unet: nn.Module) -> None:
        config: Any = unet.config
        super().__init__(_multiple(config))
        self.unet = unet
        self._levels = _levels(NoiseSchedule("cosine"))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.check_size(x_t)
        images = [each.image for each in signals.enlarged().channels.values()]
        dtype = next(self.unet.parameters()).dtype
        return self.unet(
            torch.cat([x_t, *images], dim=1).to(dtype),
            t,
            encoder_hidden_states=signals.tokens["text"].tokens.to(dtype),
            class_labels=self._noise_steps(signals.vectors.get("low_resolution")),
        ).sample

    def _noise_steps(self, level: Tensor | None) -> Tensor | None:
        """The timesteps (B,) whose noise is nearest to augmentation levels (B,)."""
        if level is None:
            return None
        levels = self._levels.to(level.device, level.dtype)
        return (level[:, None] - levels).abs().argmin(dim=1)

    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        config: Any = self.unet.config
        is_upsampler = config["class_embed_type"] is not None
        names = {"text", "low_resolution"} if is_upsampler else {"text"}
        if set(slots) != names:
            raise ContractError(
                f"this network takes the conditions {', '.join(sorted(names))}, not "
                f"{', '.join(sorted(slots)) or 'none'}."
            )
        theirs = config["in_channels"], config["out_channels"]
        ours = channels + sum(each.channels for each in slots.values()), out_channels
        width = config["encoder_hid_dim"] or config["cross_attention_dim"]
        if ours != theirs or slots["text"].tokens != width:
            raise ContractError(
                f"the contract asks for {ours[0]} channels in, {ours[1]} out and tokens of width "
                f"{slots['text'].tokens}; the network has {theirs[0]}, {theirs[1]} and {width}."
            )

    def config(self) -> dict[str, Any]:
        return {}

    def components(self) -> dict[str, nn.Module]:
        return {self.kind: self.unet}

    @classmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        from diffusers import UNet2DConditionModel

        return {cls.kind: UNet2DConditionModel}

    @classmethod
    def of_components(
        cls, components: Mapping[str, nn.Module], config: Mapping[str, Any]
    ) -> DeepFloydUNet:
        return cls(components[cls.kind])

    @property
    def trunk(self) -> nn.Module:
        return self.unet


def _multiple(config: Mapping[str, Any]) -> int:
    """Sides of images must be multiples of this number of pixels."""
    return 2 ** (len(config["block_out_channels"]) - 1)


def level_of_step(step: int) -> float:
    """The augmentation level whose noise is that of a timestep in DeepFloyd IF.

    Args:
        step: timestep of the cosine schedule, in [0, 1000).
    """
    return float(_levels(NoiseSchedule("cosine"))[step])


def _levels(schedule: NoiseSchedule) -> Tensor:
    """The augmentation level (T,) float64 with the noise of each timestep: sin(pi/2 level)^2."""
    return torch.asin((1 - schedule.alpha_bar).sqrt()) * 2 / math.pi
