"""Networks with a diffusers backbone: a U-Net or our pixel transformer, behind one call.

Images and the features that an encoder extracts from them are concatenated by channel, vectors are
embedded and summed, and a pixel unshuffle moves the work to a lower resolution. The backbone
remains a plain diffusers model, which diffusers can load on its own.

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
from cascade.networks.deep_features import can_reuse, reusing
from cascade.networks.embedding import ConditionEmbedding, embedding_for, vectors_of
from cascade.networks.half_weights import with_half_weights
from cascade.networks.image_encoder import ImageEncoder
from cascade.networks.stage_network import PlainNetwork, StageNetwork
from cascade.networks.token_embedding import TokenEmbedding, token_embedding_for, token_widths
from cascade.networks.transformer import PixelTransformer, Tokens
from cascade.space import Size

HEAD_CHANNELS = 64
EMBEDDING_DIM = 256
MAPS_AT_ONCE = 28  # feature maps of the finest level in memory at a time; 12 to 26 were measured


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """Inputs and outputs that a stage needs of a new network.

    Attributes:
        image_channels: number of channels of the noisy image.
        out_channels: number of channels of the prediction.
        size: height and width of training images in pixels.
        slots: how each condition enters, by its name.
        embedding_dim: length of the vector into which all vectors of conditions are embedded.
    """

    image_channels: int
    out_channels: int
    size: Size
    slots: Mapping[str, Slots]
    embedding_dim: int = EMBEDDING_DIM

    @property
    def in_channels(self) -> int:
        """Number of channels of the noisy image and all images concatenated to it."""
        return self.image_channels + sum(each.channels for each in self.slots.values())

    def check_multiple(self, multiple_px: int, rule: str) -> None:
        """Check that both sides of training images are multiples of a number.

        Args:
            multiple_px: the number, in pixels.
            rule: what the number is, for the error, such as `patch_size 8`.

        Raises:
            RecipeError: naming the size and the rule.
        """
        for side in self.size:
            if side % multiple_px:
                raise RecipeError(f"size {side} px must be a multiple of {rule}.")


class BackboneNetwork(StageNetwork, ABC):
    """A backbone with a condition embedding, an image encoder and a pixel unshuffle around it.

    Args:
        backbone: a diffusers model that is called like `UNet2DConditionModel`.
        embedding: embeds the conditions' vectors; None if there are none.
        tokens: joins the conditions' tokens; None if there are none.
        patch_size: side in pixels of the square that is folded into channels before the backbone.
        size_multiple_px: image sides must be multiples of this number of pixels.
        encoder: extracts features of the first conditioning image, which are concatenated too; None
            for no features.
    """

    backbone_class: ClassVar[type[ModelMixin]]

    def __init__(
        self,
        backbone: ModelMixin,
        embedding: ConditionEmbedding | None,
        tokens: TokenEmbedding | None = None,
        *,
        patch_size: int,
        size_multiple_px: int,
        encoder: ImageEncoder | None = None,
    ) -> None:
        super().__init__(size_multiple_px)
        self.backbone = backbone
        self.embedding = embedding
        self.tokens = tokens
        self.encoder = encoder
        self.patch_size = patch_size
        self._input_dtype: torch.dtype | None = None  # None for that of the backbone

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        folded, vector, (tokens, mask) = self._backbone_inputs(x_t, signals)
        output = self.backbone(
            folded,
            t,
            encoder_hidden_states=tokens,
            class_labels=vector,
            encoder_attention_mask=mask,
        ).sample
        return F.pixel_shuffle(output, self.patch_size)

    def _backbone_inputs(
        self, x_t: Tensor, signals: Signals
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor | None, Tensor | None]]:
        """Folded images (B, channels, h, w), the condition vector, and tokens with their mask."""
        self.check_size(x_t)
        signals = self.prepared(signals)
        images = [each.image for each in signals.channels.values()]
        x = torch.cat([x_t, *images], dim=1).to(self.input_dtype)
        folded = F.pixel_unshuffle(x, self.patch_size)
        if signals.features is not None:
            folded = torch.cat([folded, signals.features.to(x.dtype)], dim=1)
        vector = None if self.embedding is None else self.embedding(signals.vectors)
        tokens = (None, None) if self.tokens is None else self.tokens(signals.tokens)
        return folded, vector, tokens

    def prepared(self, signals: Signals) -> Signals:
        signals = signals.enlarged()
        if self.encoder is None or signals.features is not None:
            return signals
        image = next(iter(signals.channels.values())).image.to(self.input_dtype)
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
        _check_tokens(slots, self.tokens)
        theirs = {} if self.embedding is None else self.embedding.config["vectors"]
        ours = vectors_of(slots)
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise ContractError(
                    f"condition {name!r} is {ours.get(name)} in the contract and "
                    f"{theirs.get(name)} in the network's embedding."
                )
        if self.encoder is not None:
            _check_encoded(slots)

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of the images that the backbone and the encoder receive."""
        return self._input_dtype or self.backbone.dtype

    def for_bf16(self) -> BackboneNetwork:
        network = with_half_weights(self)
        if network is not self:
            network._input_dtype = self.input_dtype  # else the encoder would see rounded images
        return network

    @property
    def trunk(self) -> nn.Module:
        return self.backbone

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
            "tokens": self.tokens is not None,
            "encoder": self.encoder is not None,
        }

    def components(self) -> dict[str, nn.Module]:
        parts = {
            self.kind: self.backbone,
            "embedding": self.embedding,
            "tokens": self.tokens,
            "encoder": self.encoder,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @classmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        classes: dict[str, type[nn.Module]] = {cls.kind: cls.backbone_class}
        if config["embedding"]:
            classes["embedding"] = ConditionEmbedding
        if config["tokens"]:
            classes["tokens"] = TokenEmbedding
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
            components.get("tokens"),
            patch_size=config["patch_size"],
            size_multiple_px=config["size_multiple_px"],
            encoder=components.get("encoder"),
        )


def _image_channels(slots: Mapping[str, Slots]) -> str:
    """The conditions that are images, each with its channels, in words."""
    images = [f"{name!r} ({each.channels})" for name, each in slots.items() if each.channels]
    return ", ".join(images) or "none"


def _check_encoded(slots: Mapping[str, Slots]) -> None:
    """Check that the first conditioning image is one that an image encoder takes."""
    images = {name: each.channels for name, each in slots.items() if each.channels}
    if not images:
        raise ContractError("an image encoder needs a condition that is an image.")
    name, channels = next(iter(images.items()))
    if channels not in (1, 3):
        raise ContractError(
            f"an image encoder takes images of 1 or 3 channels, but {name!r} has {channels}; leave "
            "out encoder_channels."
        )


def _check_tokens(slots: Mapping[str, Slots], tokens: TokenEmbedding | None) -> None:
    ours, theirs = token_widths(slots), {} if tokens is None else tokens.config["widths"]
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise ContractError(
                f"condition {name!r} has tokens of width {ours.get(name)} in the contract and "
                f"{theirs.get(name)} in the network."
            )


@final
class StageUNet(BackboneNetwork):
    """diffusers' `UNet2DConditionModel` as a stage network."""

    kind = "unet"
    backbone_class = UNet2DConditionModel
    backbone: UNet2DConditionModel

    @property
    def has_deep_features(self) -> bool:
        return self.tokens is None and can_reuse(self.backbone)

    def reusing(
        self, x_t: Tensor, t: Tensor, signals: Signals, deep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        folded, vector, _ = self._backbone_inputs(x_t, signals)
        output, deep = reusing(self.backbone, folded, t, vector, deep)
        return F.pixel_shuffle(output, self.patch_size), deep

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
            shape: inputs and outputs that the stage needs.
            patch_size: side in pixels of the square that is folded into channels.
            channels: number of channels at each resolution, finest first; multiples of 8.
            blocks: number of residual blocks at each resolution.
            attention: whether each resolution has self-attention; default: no resolution.
            encoder_channels: number of feature channels of an `ImageEncoder`; 0 for no encoder.

        Raises:
            RecipeError: if the sizes do not divide.
            WeightsError: if the encoder's weights are not installed.
        """
        attention = list(attention) if attention is not None else [False] * len(channels)
        if len(attention) != len(channels):
            raise RecipeError(
                f"attention needs one entry per entry of channels ({len(channels)}), got "
                f"{len(attention)}."
            )
        if any(width % 8 for width in channels):
            raise RecipeError(f"channels must be multiples of 8, got {list(channels)}.")
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
    """The part of diffusers' configuration that follows from channels and attention."""
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
    backbone: PixelTransformer

    @property
    def has_attention(self) -> bool:
        return True

    @property
    def has_deep_features(self) -> bool:
        return self.backbone.config["depth"] > 0

    def reusing(
        self, x_t: Tensor, t: Tensor, signals: Signals, deep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        folded, vector, (tokens, mask) = self._backbone_inputs(x_t, signals)
        text = None if tokens is None else Tokens(tokens, mask)
        output, deep = self.backbone.reusing(folded, t, vector, text, deep)
        return F.pixel_shuffle(output, self.patch_size), deep

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
        head_blocks: int = 0,
    ) -> StageTransformer:
        """Make a new transformer; see `PixelTransformer` for the arguments.

        Raises:
            RecipeError: if the patches do not divide the image, or the widths into heads.
        """
        shape.check_multiple(patch_size, f"patch_size {patch_size}")
        embedding = embedding_for(shape.slots, shape.embedding_dim)
        tokens = token_embedding_for(shape.slots, width)
        transformer = PixelTransformer(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            patch_size=patch_size,
            width=width,
            depth=depth,
            fine_width=fine_width,
            fine_depth=fine_depth,
            head_channels=head_channels,
            head_blocks=head_blocks,
            projection_class_embeddings_input_dim=_dim(embedding),
            cross_attention_dim=None if tokens is None else width,
        )
        return cls(transformer, embedding, tokens, patch_size=1, size_multiple_px=patch_size)


NETWORKS: dict[str, type[StageNetwork]] = {
    "unet": StageUNet,
    "transformer": StageTransformer,
    "plain": PlainNetwork,
}


def build_network(kind: str, shape: NetworkShape, options: Mapping[str, Any]) -> StageNetwork:
    """Make a new network.

    Args:
        kind: `unet` or `transformer`.
        shape: inputs and outputs that the stage needs.
        options: keyword arguments of the network's `build`.

    Raises:
        ContractError: for an unknown kind; the message offers the nearest.
        RecipeError: if the options do not fit the shape.
    """
    builders = {"unet": StageUNet.build, "transformer": StageTransformer.build}
    if kind not in builders:
        raise ContractError(f"unknown network {kind!r}: {nearest(kind, builders)}")
    return builders[kind](shape, **options)
