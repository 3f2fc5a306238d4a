"""Blocks of the U-Net: the layers of one resolution, on the way down, in the middle and back up.

Shapes: B batch, C channels, H and W pixels, E embedding, M tokens of conditions, T their width.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from cascade.networks.unet_layers import (
    Downsample,
    PixelAttention,
    ResnetBlock,
    TokenTransformer,
    Upsample,
)

Run = Callable[..., Tensor]  # calls a module, see `Component.run_block`


class BlockInputs(NamedTuple):
    """What all blocks take besides the features.

    Attributes:
        embedding: of time and condition vector.
        tokens: (B, M, T) tokens of conditions; None if there are none.
        mask: (B, 1, 1, M) what is added to the scores of tokens; None if there is no padding.
    """

    embedding: Tensor
    tokens: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LayerMaker:
    """Makes the layers of one resolution.

    Attributes:
        kind: what its pixels attend to: `pixels`, `tokens` or `nothing`.
        embedding_dim: length of the embedding of time and condition vector.
        groups: number of groups of the group norms.
        head_size: number of channels of a head; with tokens, the number of heads.
        context_dim: width of the conditions' tokens.
        only_tokens: whether pixels attend to tokens alone.
    """

    kind: str
    embedding_dim: int
    groups: int
    head_size: int
    context_dim: int
    only_tokens: bool

    def resnet(self, in_channels: int, out_channels: int) -> ResnetBlock:
        """Make a residual block."""
        return ResnetBlock(in_channels, out_channels, self.embedding_dim, self.groups)

    def layers(self, in_channels: Sequence[int], channels: int) -> Layers:
        """Make residual blocks with these numbers of input channels, and their attentions."""
        pairs = [(self.resnet(width, channels), self._attention(channels)) for width in in_channels]
        attentions = [attention for _, attention in pairs if attention is not None]
        return Layers(
            nn.ModuleList(attentions) if attentions else None,
            nn.ModuleList(resnet for resnet, _ in pairs),
        )

    def _attention(self, channels: int) -> nn.Module | None:
        if self.kind == "pixels":
            return PixelAttention(channels, channels // self.head_size, groups=self.groups)
        if self.kind == "tokens":
            return TokenTransformer(
                channels,
                self.head_size,
                self.context_dim,
                groups=self.groups,
                only_tokens=self.only_tokens,
            )
        return None


class Layers(NamedTuple):
    """Layers of a block.

    Attributes:
        attentions: one for each residual block; None without attention.
        resnets: the residual blocks.
    """

    attentions: nn.ModuleList | None
    resnets: nn.ModuleList


class Block(nn.Module, ABC):
    """Residual blocks of one resolution, each with an attention or none."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.attentions, self.resnets = layers

    def layer(self, place: int, x: Tensor, inputs: BlockInputs, run: Run) -> Tensor:
        """Run a residual block and its attention."""
        x = run(self.resnets[place], x, inputs.embedding)
        if self.attentions is None:
            return x
        attention = self.attentions[place]
        if isinstance(attention, TokenTransformer):
            return attention(x, inputs.tokens, inputs.mask)
        return attention(x)


@final
class DownBlock(Block):
    """The blocks of a resolution on the way down."""

    def __init__(self, layers: Layers, downsample: Downsample | None) -> None:
        super().__init__(layers)
        self.downsamplers = None if downsample is None else nn.ModuleList([downsample])

    def forward(self, x: Tensor, inputs: BlockInputs, run: Run) -> tuple[Tensor, list[Tensor]]:
        """Returns: the features, and those that the way up takes too."""
        skips = []
        for place in range(len(self.resnets)):
            x = self.layer(place, x, inputs, run)
            skips.append(x)
        for downsample in self.downsamplers or ():
            x = downsample(x)
            skips.append(x)
        return x, skips


@final
class MidBlock(Block):
    """One residual block at the coarsest resolution."""

    def __init__(self, maker: LayerMaker, channels: int) -> None:
        super().__init__(replace(maker, kind="nothing").layers([channels], channels))

    def forward(self, x: Tensor, inputs: BlockInputs, run: Run) -> Tensor:
        """Returns: the features."""
        return self.layer(0, x, inputs, run)


@final
class UpBlock(Block):
    """The blocks of a resolution on the way up."""

    def __init__(self, layers: Layers, upsample: Upsample | None) -> None:
        super().__init__(layers)
        self.upsamplers = None if upsample is None else nn.ModuleList([upsample])

    def forward(self, x: Tensor, skips: list[Tensor], inputs: BlockInputs, run: Run) -> Tensor:
        """Takes its share of the skips from their end; returns the features."""
        for place in range(len(self.resnets)):
            x = self.layer(place, torch.cat([x, skips.pop()], dim=1), inputs, run)
        for upsample in self.upsamplers or ():
            x = upsample(x)
        return x
