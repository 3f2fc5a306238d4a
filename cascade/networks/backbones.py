"""Networks with a diffusers backbone: a U-Net or our pixel transformer, behind one call.

Images, and what an encoder sees in them, are concatenated by channel, vectors are summed, and a
pixel unshuffle moves the work to a lower resolution. The backbone that remains is a plain diffusers
model, which can be loaded on its own.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DConditionModel
from torch import Tensor, nn

from cascade.conditioning.condition import Slots
from cascade.conditioning.signals import Signals
from cascade.errors import ContractError, RecipeError, nearest
from cascade.networks.embedding import ConditionEmbedding, embedding_for, vectors_of
from cascade.networks.image_encoder import ImageEncoder
from cascade.networks.stage_network import PlainNetwork, StageNetwork
from cascade.networks.transformer import PixelTransformer
from cascade.space import Size

HEAD_CHANNELS = 64
EMBEDDING_DIM = 256
MAPS_AT_ONCE = 28  # feature maps of the finest level that are in memory together; 12 to 26 measured


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """What a stage needs of a new network.

    Attributes:
        image_channels: of the noisy image.
        out_channels: of the prediction.
        size: height and width of training images in pixels.
        slots: of the conditions, by name.
        embedding_dim: length of the vector that the conditions share.
    """

    image_channels: int
    out_channels: int
    size: Size
    slots: Mapping[str, Slots]
    embedding_dim: int = EMBEDDING_DIM

    @property
    def in_channels(self) -> int:
        """Channels of the noisy image and of what is concatenated to it."""
        return self.image_channels + sum(each.channels for each in self.slots.values())

    def check_multiple(self, multiple_px: int, rule: str) -> None:
        """Check that both sides are multiples of a number.

        Raises:
            RecipeError: naming the size and the rule, such as `patch_size 8`.
        """
        for side in self.size:
            if side % multiple_px:
                raise RecipeError(f"size {side} px must be a multiple of {rule}.")


class BackboneNetwork(StageNetwork, ABC):
    """A backbone, its condition embedding and encoder, and the shuffle of pixels into patches.

    Args:
        backbone: called as diffusers' `UNet2DConditionModel` is.
        embedding: of the conditions' vectors; None if there are none.
        patch_size: side in pixels of the square that is folded into channels before the backbone.
        size_multiple_px: image sides must be multiples of it.
        encoder: of the first conditioning image, whose features are concatenated too; None for
            none.
    """

    backbone_class: ClassVar[type[ModelMixin]]

    def __init__(
        self,
        backbone: ModelMixin,
        embedding: ConditionEmbedding | None,
        *,
        patch_size: int,
        size_multiple_px: int,
        encoder: ImageEncoder | None = None,
    ) -> None:
        super().__init__(size_multiple_px)
        self.backbone = backbone
        self.embedding = embedding
        self.encoder = encoder
        self.patch_size = patch_size

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.check_size(x_t)
        signals = self.prepared(signals)
        images = [each.image for each in signals.channels.values()]
        x = torch.cat([x_t, *images], dim=1).to(self.backbone.dtype)
        folded = F.pixel_unshuffle(x, self.patch_size)
        if signals.features is not None:
            folded = torch.cat([folded, signals.features.to(x.dtype)], dim=1)
        vector = None if self.embedding is None else self.embedding(signals.vectors)
        output = self.backbone(folded, t, encoder_hidden_states=None, class_labels=vector).sample
        return F.pixel_shuffle(output, self.patch_size)

    def prepared(self, signals: Signals) -> Signals:
        signals = signals.enlarged()
        if self.encoder is None or signals.features is not None:
            return signals
        image = next(iter(signals.channels.values())).image.to(self.backbone.dtype)
        height, width = (side // self.patch_size for side in image.shape[-2:])
        return replace(signals, features=self.encoder(image, (height, width)))

    def check(self, channels: int, out_channels: int, slots: Mapping[str, Slots]) -> None:
        config, pixels = self.backbone.config, self.patch_size**2
        encoded = 0 if self.encoder is None else self.encoder.config["channels"]
        theirs = (config["in_channels"] - encoded) / pixels, config["out_channels"] / pixels
        ours = channels + sum(each.channels for each in slots.values()), out_channels
        if ours != theirs:
            raise ContractError(
                f"the contract asks for {ours[0]} channels in and {ours[1]} out, the network has "
                f"{theirs[0]:g} and {theirs[1]:g}; conditions that are images: "
                f"{_image_channels(slots)}."
            )
        _check_slots(slots)
        vectors = {} if self.embedding is None else self.embedding.config["vectors"]
        wanted = vectors_of(slots)
        for name in wanted.keys() | vectors.keys():
            if wanted.get(name) != vectors.get(name):
                raise ContractError(
                    f"condition {name!r} is {wanted.get(name)} in the contract and "
                    f"{vectors.get(name)} in the network's embedding."
                )
        if self.encoder is not None and not any(each.channels for each in slots.values()):
            raise ContractError("an image encoder needs a condition that is an image.")

    @property
    def trunk(self) -> nn.Module:
        return self.backbone

    @property
    def has_attention(self) -> bool:
        return any("Attention" in type(module).__name__ for module in self.backbone.modules())

    def bytes_at_once(self, side_px: int) -> int:
        config = self.backbone.config
        channels = config.get("block_out_channels", [config.get("width")])[0]
        finest_map = channels * (side_px // config.get("patch_size", self.patch_size)) ** 2
        encoded = 0 if self.encoder is None else self.encoder.numbers_at_once(side_px)
        return 4 * max(encoded, MAPS_AT_ONCE * finest_map)

    def config(self) -> dict[str, Any]:
        return {
            "patch_size": self.patch_size,
            "size_multiple_px": self.size_multiple_px,
            "embedding": self.embedding is not None,
            "encoder": self.encoder is not None,
        }

    def components(self) -> dict[str, nn.Module]:
        parts = {self.kind: self.backbone, "embedding": self.embedding, "encoder": self.encoder}
        return {name: part for name, part in parts.items() if part is not None}

    @classmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        classes: dict[str, type[nn.Module]] = {cls.kind: cls.backbone_class}
        if config["embedding"]:
            classes["embedding"] = ConditionEmbedding
        if config["encoder"]:
            classes["encoder"] = ImageEncoder
        return classes

    @classmethod
    def of_components(
        cls, components: Mapping[str, Any], config: Mapping[str, Any]
    ) -> BackboneNetwork:
        return cls(
            components[cls.kind],
            components.get("embedding"),
            patch_size=config["patch_size"],
            size_multiple_px=config["size_multiple_px"],
            encoder=components.get("encoder"),
        )


def _image_channels(slots: Mapping[str, Slots]) -> str:
    """The conditions that are images, each with its channels, in words."""
    images = [f"{name!r} ({each.channels})" for name, each in slots.items() if each.channels]
    return ", ".join(images) or "none"


def _check_slots(slots: Mapping[str, Slots]) -> None:
    for name, each in slots.items():
        if each.tokens:
            raise ContractError(
                f"condition {name!r} is tokens of width {each.tokens}, which this network does not "
                "attend to; it takes images and vectors."
            )


@final
class StageUNet(BackboneNetwork):
    """diffusers' `UNet2DConditionModel` as a stage network."""

    kind = "unet"
    backbone_class = UNet2DConditionModel

    @classmethod
    def build(
        cls,
        shape: NetworkShape,
        *,
        patch_size: int = 1,
        channels: Sequence[int] = (64, 128, 256),
        blocks: int = 2,
        attention: Sequence[bool] | None = None,
        encoder_channels: int = 0,
    ) -> StageUNet:
        """Make a new U-Net.

        Args:
            shape: what goes in and out.
            patch_size: side of the folded square, in pixels.
            channels: of each resolution, finest first; multiples of 8.
            blocks: residual blocks of each resolution.
            attention: which resolutions have self-attention; default: none.
            encoder_channels: how many channels an `ImageEncoder` adds; 0 for no encoder.

        Raises:
            RecipeError: if the sizes do not divide.
            WeightsError: if the encoder's weights are not installed.
        """
        attention = list(attention) if attention is not None else [False] * len(channels)
        if len(attention) != len(channels):
            raise RecipeError(
                f"network.attention needs one entry per entry of network.channels "
                f"({len(channels)}), got {len(attention)}."
            )
        if any(width % 8 for width in channels):
            raise RecipeError(f"network.channels must be multiples of 8, got {list(channels)}.")
        multiple = patch_size * 2 ** (len(channels) - 1)
        shape.check_multiple(multiple, f"patch_size x 2^(levels - 1) = {multiple}")
        embedding = embedding_for(shape.slots, shape.embedding_dim)
        height, width = (side // patch_size for side in shape.size)
        unet = UNet2DConditionModel(
            sample_size=height if height == width else (height, width),
            in_channels=shape.in_channels * patch_size**2 + encoder_channels,
            out_channels=shape.out_channels * patch_size**2,
            layers_per_block=blocks,
            **_unet_config(channels, attention, embedding),
        )
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter)
        encoder = None
        if encoder_channels:
            encoder = ImageEncoder.pretrained(encoder_channels, max(shape.size))
        return cls(
            unet, embedding, patch_size=patch_size, size_multiple_px=multiple, encoder=encoder
        )


def _unet_config(
    channels: Sequence[int], attention: Sequence[bool], embedding: ConditionEmbedding | None
) -> dict[str, Any]:
    """The part of diffusers' configuration that follows from widths and attention."""
    down = tuple("AttnDownBlock2D" if each else "DownBlock2D" for each in attention)
    up = tuple("AttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attention))
    return {
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": up,
        "block_out_channels": tuple(channels),
        "attention_head_dim": math.gcd(HEAD_CHANNELS, *channels),
        "norm_num_groups": math.gcd(32, *channels),
        "class_embed_type": None if embedding is None else "projection",
        "projection_class_embeddings_input_dim": _dim(embedding),
    }


def _dim(embedding: ConditionEmbedding | None) -> int | None:
    return None if embedding is None else embedding.config["dim"]


@final
class StageTransformer(BackboneNetwork):
    """Our `PixelTransformer` as a stage network; it folds patches itself."""

    kind = "transformer"
    backbone_class = PixelTransformer

    @classmethod
    def build(
        cls,
        shape: NetworkShape,
        *,
        patch_size: int = 8,
        width: int = 256,
        depth: int = 8,
        fine_width: int = 128,
        fine_depth: int = 2,
        head_channels: int = 24,
    ) -> StageTransformer:
        """Make a new transformer; see `PixelTransformer` for the arguments.

        Raises:
            RecipeError: if the patches do not divide the image, or the widths into heads.
        """
        shape.check_multiple(patch_size, f"patch_size {patch_size}")
        embedding = embedding_for(shape.slots, shape.embedding_dim)
        transformer = PixelTransformer(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            patch_size=patch_size,
            width=width,
            depth=depth,
            fine_width=fine_width,
            fine_depth=fine_depth,
            head_channels=head_channels,
            projection_class_embeddings_input_dim=_dim(embedding),
        )
        return cls(transformer, embedding, patch_size=1, size_multiple_px=patch_size)


NETWORKS: dict[str, type[StageNetwork]] = {
    "unet": StageUNet,
    "transformer": StageTransformer,
    "plain": PlainNetwork,
}


def build_network(kind: str, shape: NetworkShape, options: Mapping[str, Any]) -> StageNetwork:
    """Make a new network of a kind that can be built from options.

    Raises:
        ContractError: for an unknown kind; the message offers the nearest.
        RecipeError: if the options do not fit the shape.
    """
    builders = {"unet": StageUNet.build, "transformer": StageTransformer.build}
    if kind not in builders:
        raise ContractError(f"unknown network {kind!r}: {nearest(kind, builders)}")
    return builders[kind](shape, **options)
