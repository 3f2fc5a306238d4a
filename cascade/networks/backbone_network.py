"""BackboneNetwork: a U-Net or a transformer with what brings the conditions to it.

Images and the features that an encoder extracts from them are concatenated by channel, vectors are
embedded and summed, tokens are projected and attended to, and a pixel unshuffle moves the work to a
lower resolution. Backbone and conditions are components of their own, and diffusers can load a
U-Net without the rest.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Slots
from cascade.errors import ContractError, RecipeError
from cascade.networks.attention import CrossAttention
from cascade.networks.component import Component
from cascade.networks.embedding import ConditionEmbedding, vectors_of
from cascade.networks.half_weights import with_half_weights
from cascade.networks.image_encoder import ImageEncoder
from cascade.networks.residual_mlp import ResidualMlp
from cascade.networks.stage_network import StageNetwork
from cascade.networks.token_embedding import TokenEmbedding, token_widths
from cascade.networks.unet_layers import TokenTransformer
from cascade.space import Size

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
        backbone: a U-Net, a transformer or a perceptron, called and configured as `UNet` is.
        embedding: embeds the conditions' vectors; None if there are none.
        tokens: joins the conditions' tokens; None if there are none.
        patch_size: side in pixels of the square that is folded into channels before the backbone.
        size_multiple_px: image sides must be multiples of this number of pixels.
        encoder: extracts features of the first conditioning image, which are concatenated too; None
            for no features.
        gated: whether the backbone's last C channels per pixel are a gate: the noisy image, times
            the gate, is added to the others. To keep or remove the noise of a pixel, the network
            then decides one number, and need not pass all noise through its channels.
    """

    backbone_class: ClassVar[type[Component]]

    def __init__(
        self,
        backbone: Any,
        embedding: ConditionEmbedding | None,
        tokens: TokenEmbedding | None = None,
        *,
        patch_size: int,
        size_multiple_px: int,
        encoder: ImageEncoder | None = None,
        gated: bool = False,
    ) -> None:
        super().__init__(size_multiple_px)
        self.backbone: Any = backbone
        self.embedding = embedding
        self.tokens = tokens
        self.encoder = encoder
        self.patch_size = patch_size
        self.gated = gated
        self._input_dtype: torch.dtype | None = None  # None for that of the backbone

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        folded, inputs = self._backbone_inputs(x_t, signals)
        return self._unfolded(self.backbone(folded, t, **inputs).sample, x_t)

    def reusing(
        self, x_t: Tensor, t: Tensor, signals: Signals, deep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        folded, inputs = self._backbone_inputs(x_t, signals)
        assert not isinstance(self.backbone, ResidualMlp), "has_deep_features says so"
        output, features = self.backbone.reusing(folded, t, deep, **inputs)
        return self._unfolded(output, x_t), features

    def _unfolded(self, output: Tensor, x_t: Tensor) -> Tensor:
        """The prediction (B, C or 2 C, H, W) from the backbone's output (B, channels, h, w)."""
        images = F.pixel_shuffle(output, self.patch_size)
        if not self.gated:
            return images
        count = x_t.shape[1]
        first, others, gate = images.split([count, images.shape[1] - 2 * count, count], dim=1)
        return torch.cat([first + gate * x_t, others], dim=1)

    def _backbone_inputs(self, x_t: Tensor, signals: Signals) -> tuple[Tensor, dict[str, Any]]:
        """Images in patches (B, channels, h, w), and the backbone's further arguments."""
        self.check_size(x_t)
        signals = self.prepared(signals)
        images = [each.image for each in signals.channels.values()]
        x = torch.cat([x_t, *images], dim=1).to(self.input_dtype)
        folded = F.pixel_unshuffle(x, self.patch_size)
        if signals.features is not None:
            folded = torch.cat([folded, signals.features.to(x.dtype)], dim=1)
        vector = None if self.embedding is None else self.embedding(signals.vectors)
        return folded, {"class_labels": vector, **self._embed_tokens(signals)}

    def _embed_tokens(self, signals: Signals) -> dict[str, Tensor | None]:
        """The backbone's arguments for tokens and their mask."""
        if self.tokens is None:
            return {"encoder_hidden_states": None}
        tokens, mask = self.tokens(signals.tokens)
        return {"encoder_hidden_states": tokens, "encoder_attention_mask": mask}

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
        gates = channels if self.gated else 0
        theirs = (config["in_channels"] - encoded) / pixels, config["out_channels"] / pixels - gates
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

    @property
    def token_weights(self) -> dict[str, list[str]]:
        if self.tokens is None:
            return {}
        names, widths = list(self.state_dict()), self.tokens.config["widths"]
        modules = {
            "cross-attention": [n for n, each in self.named_modules() if _is_cross_attention(each)],
            "token embedding": ["tokens"],
            "embedding of pooled tokens": [f"embedding.parts.{name}" for name in widths],
        }
        vectors = {} if self.embedding is None else self.embedding.config["vectors"]
        if vectors.keys() <= widths.keys():  # without tokens, there would be no vector at all
            projections = ("backbone.class_embedding", "backbone.condition_embedding")
            modules["embedding of pooled tokens"] += projections
        weights = {
            part: [name for name in names if name.startswith(tuple(f"{each}." for each in starts))]
            for part, starts in modules.items()
        }
        return {part: own for part, own in weights.items() if own}

    def bytes_at_once(self, side_px: int) -> int:
        config = self.backbone.config
        channels = config.get("block_out_channels", [config.get("width")])[0]
        finest_map = channels * (side_px // config.get("patch_size", self.patch_size)) ** 2
        encoded = 0 if self.encoder is None else self.encoder.numbers_at_once(side_px)
        return 4 * max(encoded, MAPS_AT_ONCE * finest_map)

    def config(self) -> dict[str, Any]:
        config = {
            "patch_size": self.patch_size,
            "size_multiple_px": self.size_multiple_px,
            "embedding": self.embedding is not None,
            "tokens": self.tokens is not None,
            "encoder": self.encoder is not None,
        }
        return {**config, "gated": True} if self.gated else config

    def components(self) -> dict[str, nn.Module]:
        parts = {
            self.kind: self.backbone,
            "embedding": self.embedding,
            "tokens": self.tokens,
            "encoder": self.encoder,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @classmethod
    def class_of_backbone(cls) -> type[nn.Module]:
        """The class of the backbone; a class of diffusers is imported when it is asked for."""
        return cls.backbone_class

    @classmethod
    def component_classes(cls, config: Mapping[str, Any]) -> dict[str, type[nn.Module]]:
        classes: dict[str, type[nn.Module]] = {cls.kind: cls.class_of_backbone()}
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
            gated=config.get("gated", False),
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
        if tokens is not None and tokens.spread[name] != slots[name].spread:
            raise ContractError(
                f"each token of condition {name!r} becomes {slots[name].spread} in the contract "
                f"and {tokens.spread[name]} in the network."
            )


def _is_cross_attention(module: nn.Module) -> bool:
    """Whether a module does nothing but attend to tokens, so that it is new where tokens are."""
    if isinstance(module, TokenTransformer):
        return module.only_tokens
    return isinstance(module, CrossAttention)
