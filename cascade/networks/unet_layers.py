"""Layers of the U-Net; their weights have the names, order and first values of diffusers'.

Shapes: B batch, C channels, H and W pixels, E embedding, N pixels as a sequence, D width of a
token, M tokens of conditions, T their width.
"""

from __future__ import annotations

from abc import ABC
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn


@final
class ResnetBlock(nn.Module):
    """Two 3x3 convolutions around which the input is added; the embedding shifts their middle."""

    def __init__(
        self, in_channels: int, out_channels: int, embedding_dim: int, groups: int
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = None
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Args: x (B, C, H, W), embedding (B, E). Returns: (B, out_channels, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = hidden + self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            if self.training:  # DDP warns of gradients whose strides differ from the weights'
                x = x.contiguous()
            x = self.conv_shortcut(x)
        return x + hidden


class Attention(nn.Module, ABC):
    """Multi-head attention.

    Args:
        dim: width D of a token.
        heads: number of heads.
        context_dim: width T of the tokens that are attended to; None for D.
        groups: number of groups of a group norm before it; None for no norm and no biases.
    """

    def __init__(
        self, dim: int, heads: int, context_dim: int | None = None, groups: int | None = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = None if groups is None else nn.GroupNorm(groups, dim)
        self.is_cross_attention = context_dim is not None
        bias = groups is not None
        self.to_q = nn.Linear(dim, dim, bias=bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])  # a list, for the name of its weights

    def attend(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from one sequence to another.

        Args:
            x: (B, N, D).
            context: (B, M, T) what to attend to.
            mask: (B, 1, 1, M) what is added to the scores; None for nothing.

        Returns:
            (B, N, D).
        """
        query, key, value = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.to_q(x), self.to_k(context), self.to_v(context))
        )  # (B, heads, N or M, D / heads)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out[0](attended.transpose(1, 2).flatten(2))


@final
class PixelAttention(Attention):
    """Attention of all pixels to each other, added to the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, C, H, W). Returns: (B, C, H, W)."""
        assert self.group_norm is not None
        pixels = self.group_norm(x.flatten(2)).transpose(1, 2)  # (B, N, C)
        return self.attend(pixels, pixels).transpose(1, 2).reshape(x.shape) + x


@final
class TokenAttention(Attention):
    """Attention of a sequence to itself or to another one."""

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Args: x (B, N, D), context (B, M, T) or None for x, mask as for `attend`."""
        return self.attend(x, x if context is None else context, mask)


@final
class TokenBlock(nn.Module):
    """Two attentions and a GEGLU layer, each behind a layer norm and added to its input.

    Args:
        dim: width D of a pixel's token.
        heads: number of heads.
        context_dim: width T of the conditions' tokens.
        only_tokens: whether both attentions attend to the conditions' tokens; by default the first
            one is self-attention.
    """

    def __init__(self, dim: int, heads: int, context_dim: int, *, only_tokens: bool) -> None:
        super().__init__()
        self.only_tokens = only_tokens
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = TokenAttention(dim, heads, context_dim if only_tokens else None)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = TokenAttention(dim, heads, context_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Args: x (B, N, D), tokens (B, M, T), mask (B, 1, 1, M) or None. Returns: (B, N, D)."""
        if self.only_tokens:
            x = self.attn1(self.norm1(x), tokens, mask) + x
        else:
            x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), tokens, mask) + x
        return self.ff(self.norm3(x)) + x


@final
class GatedLayer(nn.Module):
    """GEGLU (Shazeer 2020, arXiv 2002.05202): (B, N, D) to (B, N, hidden)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, N, D). Returns: (B, N, hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


@final
class FeedForward(nn.Module):
    """A gated layer of four times the width and a linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The place between them is that of diffusers' dropout, which gives the weights their names.
        self.net = nn.Sequential(GatedLayer(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, N, D). Returns: (B, N, D)."""
        return self.net(x)


@final
class TokenTransformer(nn.Module):
    """Attention of all pixels to the conditions' tokens, added to the input.

    Args:
        channels: number of channels C.
        heads: number of heads.
        context_dim: width T of the conditions' tokens.
        groups: number of groups of the group norm.
        only_tokens: whether pixels attend to the tokens alone and not to each other.
    """

    def __init__(
        self, channels: int, heads: int, context_dim: int, *, groups: int, only_tokens: bool
    ) -> None:
        super().__init__()
        self.only_tokens = only_tokens
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        block = TokenBlock(channels, heads, context_dim, only_tokens=only_tokens)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Args: x (B, C, H, W), tokens (B, M, T), mask (B, 1, 1, M) or None."""
        projected = self.proj_in(self.norm(x))
        pixels = projected.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
        for block in self.transformer_blocks:
            pixels = block(pixels, tokens, mask)
        pixels = pixels.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
        return self.proj_out(pixels.contiguous()) + x


@final
class Downsample(nn.Module):
    """A 3x3 convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, C, H, W). Returns: (B, C, H / 2, W / 2)."""
        return self.conv(x)


@final
class Upsample(nn.Module):
    """Every pixel four times, and a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Args: x (B, C, H, W). Returns: (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
