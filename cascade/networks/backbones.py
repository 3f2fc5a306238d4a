"""The networks that a recipe can name: a U-Net, a pixel transformer and a perceptron."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from torch import nn

from cascade.arguments import check_network_options
from cascade.errors import ContractError, RecipeError, nearest
from cascade.networks.backbone_network import BackboneNetwork, NetworkShape
from cascade.networks.embedding import ConditionEmbedding, embedding_for
from cascade.networks.image_encoder import ImageEncoder
from cascade.networks.imported_networks import DeepFloydUNet, StageADMUNet, StageUNet2D
from cascade.networks.residual_mlp import ResidualMlp
from cascade.networks.stage_network import PlainNetwork, StageNetwork
from cascade.networks.token_embedding import TokenEmbedding, token_embedding_for
from cascade.networks.transformer import PixelTransformer
from cascade.networks.unet import UNet
from cascade.networks.unet_layers import TokenTransformer

HEAD_CHANNELS = 64


@final
class StageUNet(BackboneNetwork):
    """A U-Net as a stage network.

    Levels with self-attention attend to tokens as well. Without such a level, the coarsest one
    attends to tokens and nothing else: pixels still do not look at each other across the image, so
    that the network works on crops and tiles as it does without tokens.
    """

    kind = "unet"
    backbone_class = UNet

    @property
    def has_deep_features(self) -> bool:
        return len(self.backbone.config["block_out_channels"]) > 1

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
        gated: bool = False,
    ) -> StageUNet:
        """Make a new U-Net.

        Args:
            shape: inputs and outputs that the stage needs.
            patch_size: side in pixels of the square that is folded into channels.
            channels: number of channels at each resolution, finest first; multiples of 8.
            blocks: number of residual blocks at each resolution.
            attention: whether each resolution has self-attention, and attention to tokens if there
                are any; default: no resolution has self-attention, and the coarsest attends to
                tokens.
            encoder_channels: number of feature channels of an `ImageEncoder`; 0 for no encoder.
            gated: see `BackboneNetwork`.

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
        tokens = token_embedding_for(shape.slots, channels[-1])
        height, width = (side // patch_size for side in shape.size)
        gates = shape.image_channels if gated else 0
        unet = UNet(
            sample_size=height if height == width else (height, width),
            in_channels=shape.in_channels * patch_size**2 + encoder_channels,
            out_channels=(shape.out_channels + gates) * patch_size**2,
            layers_per_block=blocks,
            **_unet_config(channels, attention, embedding, tokens),
        )
        for parameter in unet.conv_out.parameters():
            nn.init.zeros_(parameter)
        if tokens is not None:
            _start_without_tokens(unet)
        encoder = None
        if encoder_channels:
            encoder = ImageEncoder.pretrained(encoder_channels, max(shape.size))
        return cls(
            unet,
            embedding,
            tokens,
            patch_size=patch_size,
            size_multiple_px=multiple,
            encoder=encoder,
            gated=gated,
        )


def _unet_config(
    channels: Sequence[int],
    attention: Sequence[bool],
    embedding: ConditionEmbedding | None,
    tokens: TokenEmbedding | None,
) -> dict[str, Any]:
    """The part of diffusers' configuration that follows from channels and conditions."""
    if tokens is None:
        blocks = _blocks("Attn", attention) | {
            "attention_head_dim": math.gcd(HEAD_CHANNELS, *channels)
        }
    else:
        blocks = _attention_to_tokens(channels, attention, tokens)
    return blocks | {
        "block_out_channels": tuple(channels),
        "norm_num_groups": math.gcd(32, *channels),
        "class_embed_type": None if embedding is None else "projection",
        "projection_class_embeddings_input_dim": _dim(embedding),
    }


def _blocks(prefix: str, attention: Sequence[bool]) -> dict[str, Any]:
    down = tuple(f"{prefix}DownBlock2D" if each else "DownBlock2D" for each in attention)
    up = tuple(f"{prefix}UpBlock2D" if each else "UpBlock2D" for each in reversed(attention))
    return {"down_block_types": down, "up_block_types": up}


def _attention_to_tokens(
    channels: Sequence[int], attention: Sequence[bool], tokens: TokenEmbedding
) -> dict[str, Any]:
    """The part of diffusers' configuration that has other values if there are tokens."""
    own = any(attention)
    levels = attention if own else [False] * (len(channels) - 1) + [True]
    head_channels = math.gcd(HEAD_CHANNELS, *channels)
    return _blocks("CrossAttn", levels) | {
        # For these blocks, it is the number of heads; diffusers named it so.
        "attention_head_dim": tuple(width // head_channels for width in channels),
        "cross_attention_dim": tokens.config["dim"],
        "only_cross_attention": not own,
    }


def _start_without_tokens(unet: UNet) -> None:
    """Let a new network give the output that it would give without tokens."""
    for module in unet.modules():
        if isinstance(module, TokenTransformer):
            for parameter in module.proj_out.parameters():
                nn.init.zeros_(parameter)
    if unet.class_embedding is not None:  # an embedding of zeros remains zero
        for name, parameter in unet.class_embedding.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)


def _dim(embedding: ConditionEmbedding | None) -> int | None:
    return None if embedding is None else embedding.config["dim"]


@final
class StageTransformer(BackboneNetwork):
    """Our `PixelTransformer` as a stage network; it folds patches itself."""

    kind = "transformer"
    backbone_class = PixelTransformer

    @property
    def has_attention(self) -> bool:
        return True

    @property
    def has_deep_features(self) -> bool:
        return self.backbone.config["depth"] > 0

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
        if tokens is not None and transformer.condition_embedding is not None:
            nn.init.zeros_(transformer.condition_embedding.bias)  # zeros remain zero
        return cls(transformer, embedding, tokens, patch_size=1, size_multiple_px=patch_size)


@final
class StageMlp(BackboneNetwork):
    """Our `ResidualMlp` as the network of a stage whose images are vectors of 1 px."""

    kind = "mlp"
    backbone_class = ResidualMlp

    @property
    def has_attention(self) -> bool:
        return False

    @classmethod
    def build(cls, shape: NetworkShape, *, width: int = 512, depth: int = 6) -> StageMlp:
        """Make a new perceptron; see `ResidualMlp` for the arguments.

        Raises:
            RecipeError: if the images are larger than 1 px, or the width does not divide.
        """
        if tuple(shape.size) != (1, 1):
            raise RecipeError(
                f"the network mlp is for vectors, images of 1x1 px, got {shape.size[1]}x"
                f"{shape.size[0]} px; use unet or transformer."
            )
        embedding = embedding_for(shape.slots, shape.embedding_dim)
        tokens = token_embedding_for(shape.slots, width)
        perceptron = ResidualMlp(
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            width=width,
            depth=depth,
            projection_class_embeddings_input_dim=_dim(embedding),
            cross_attention_dim=None if tokens is None else width,
        )
        return cls(perceptron, embedding, tokens, patch_size=1, size_multiple_px=1)


NETWORKS: dict[str, type[StageNetwork]] = {
    "unet": StageUNet,
    "transformer": StageTransformer,
    "mlp": StageMlp,
    "adm_unet": StageADMUNet,
    "unet_2d": StageUNet2D,
    "deepfloyd_unet": DeepFloydUNet,
    "plain": PlainNetwork,
}


def build_network(kind: str, shape: NetworkShape, options: Mapping[str, Any]) -> StageNetwork:
    """Make a new network.

    Args:
        kind: `unet`, `transformer`, `mlp`, or that of an imported network, `adm_unet` or `unet_2d`.
        shape: inputs and outputs that the stage needs.
        options: keyword arguments of the network's `build`.

    Raises:
        ContractError: for an unknown kind or option; the message offers the nearest.
        RecipeError: if the options do not fit the shape.
    """
    builders: dict[str, Callable[..., StageNetwork]] = {
        each.kind: each.build
        for each in (StageUNet, StageTransformer, StageMlp, StageADMUNet, StageUNet2D)
    }
    if kind not in builders:
        raise ContractError(f"unknown network {kind!r}: {nearest(kind, builders)}")
    check_network_options(options, builders[kind])
    return builders[kind](shape, **options)
