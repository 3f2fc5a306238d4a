"""Layers of the U-Net of guided diffusion; their weights have the names of its checkpoints.

Shapes: B batch, C channels, H and W pixels, E embedding, N pixels as a sequence.
"""

from __future__ import annotations

from typing import Literal, final

import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32
AttentionOrder = Literal["legacy", "new"]
Resampling = Literal["up", "down"]


@final
class ADMLayerMaker:
    """Makes the layers of one network."""

    def __init__(
        self,
        dim: int,
        heads: int | None,
        head_channels: int | None,
        order: AttentionOrder,
        scale_shift: bool,
        residual_resampling: bool,
    ) -> None:
        self.dim = dim
        self.heads = heads
        self.head_channels = head_channels
        self.order: AttentionOrder = order
        self.scale_shift = scale_shift
        self.residual_resampling = residual_resampling

    def block(
        self, in_channels: int, out_channels: int, resampling: Resampling | None = None
    ) -> ADMBlock:
        return ADMBlock(
            in_channels,
            out_channels,
            self.dim,
            scale_shift=self.scale_shift,
            resampling=resampling,
        )

    def attention(self, channels: int) -> ADMAttention:
        heads = self.heads
        if heads is None:
            assert self.head_channels is not None
            if channels % self.head_channels:
                raise ValueError(
                    f"{channels} channels are not a whole multiple of {self.head_channels}, the "
                    "channels of a head"
                )
            heads = channels // self.head_channels
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        return ADMAttention(channels, heads, self.order)

    def layers(self, in_channels: int, out_channels: int, *, attention: bool) -> nn.ModuleList:
        """A residual block, and its attention if there is one."""
        layers = nn.ModuleList([self.block(in_channels, out_channels)])
        if attention:
            layers.append(self.attention(out_channels))
        return layers

    def resampler(self, channels: int, way: Resampling) -> nn.Module:
        """What halves or doubles the resolution."""
        if self.residual_resampling:
            return self.block(channels, channels, way)
        return ADMDownsample(channels) if way == "down" else ADMUpsample(channels)


@final
class ADMBlock(nn.Module):
    """A residual block, which may halve or double the resolution.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the output.
        embedding_dim: length E of the embedding.
        scale_shift: whether the embedding scales and shifts.
        resampling: `up`, `down`, or None to keep the resolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_dim: int,
        *,
        scale_shift: bool,
        resampling: Resampling | None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resampling: Resampling | None = resampling
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
        )
        wide = 2 * out_channels if scale_shift else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding_dim, wide))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out_channels),
            nn.SiLU(),
            nn.Identity(),  # the place of dropout, which gives the weights their names
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection = nn.Identity()
        if in_channels != out_channels:
            self.skip_connection = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Args: x (B, C, H, W), embedding (B, E). Returns: (B, out_channels, H', W')."""
        norm, act, conv = self.in_layers
        hidden = conv(self._resampled(act(norm(x))))
        norm, *rest = self.out_layers
        vector = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = vector.chunk(2, dim=1)
            hidden = norm(hidden) * (1 + scale) + shift
        else:
            hidden = norm(hidden + vector)
        for layer in rest:
            hidden = layer(hidden)
        return self.skip_connection(self._resampled(x)) + hidden

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resampling == "down":
            return F.avg_pool2d(x, 2)
        if self.resampling == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x


@final
class ADMAttention(nn.Module):
    """Attention of all pixels to each other, added to the input.

    Args:
        channels: number of channels C.
        heads: number of heads, a divisor of C.
        order: order of queries, keys and values.
    """

    def __init__(self, channels: int, heads: int, order: AttentionOrder) -> None:
        super().__init__()
        self.heads = heads
        self.order: AttentionOrder = order
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, C, H, W). Returns: (B, C, H, W)."""
        qkv = self.qkv(self.norm(x.flatten(2)))  # (B, 3 C, N)
        if self.order == "legacy":
            parts = qkv.unflatten(1, (self.heads, 3, -1)).unbind(2)
        else:
            parts = qkv.unflatten(1, (3, self.heads, -1)).unbind(1)
        query, key, value = (each.transpose(-1, -2) for each in parts)  # (B, heads, N, C / heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(attended.transpose(-1, -2).flatten(1, 2)).reshape(x.shape)


@final
class ADMDownsample(nn.Module):
    """A 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, C, H, W). Returns: (B, C, H / 2, W / 2)."""
        return self.op(x)


@final
class ADMUpsample(nn.Module):
    """Every pixel four times, and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, C, H, W). Returns: (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
