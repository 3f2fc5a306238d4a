"""Attention of the pixel transformer, and its attention to the tokens of conditions.

Shapes: B batch, N tokens of the image, D their width, M tokens of conditions, T their width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64
PLAIN_ATTENTION = 2**16  # pairs of tokens; beyond, memory counts for more than time


class Tokens(NamedTuple):
    """Tokens of conditions.

    Attributes:
        tokens: (B, M, T).
        mask: (B, M) bool, False for padding; None if there is none.
    """

    tokens: Tensor
    mask: Tensor | None


class CrossAttention(nn.Module):
    """Attention from the image's tokens to those of conditions; its output starts at zero."""

    def __init__(self, width: int, tokens_width: int) -> None:
        super().__init__()
        self.heads = max(width // HEAD_WIDTH, 1)
        self.head_gain = nn.Parameter(torch.ones(width // self.heads))
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(tokens_width, 2 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, tokens: Tensor, text: Tokens) -> Tensor:
        """Args: tokens (B, N, D), text. Returns: (B, N, D)."""
        query = self.query(tokens).unflatten(-1, (self.heads, -1))
        key, value = self.key_value(text.tokens).unflatten(-1, (2, self.heads, -1)).unbind(2)
        query, key = (
            F.rms_norm(each, each.shape[-1:], eps=1e-6) * self.head_gain.to(each.dtype)
            for each in (query, key)
        )
        return self.project(attention(query, key, value, text.mask))


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention.

    On a CPU, short sequences take plain matrix products: the backward pass of torch's fused kernel
    needs four times their time there.

    Args:
        query: (B, N, heads, width of a head).
        key: (B, M, heads, width of a head).
        value: (B, M, heads, width of a head).
        mask: (B, M) bool, False for tokens to ignore; None to attend to all.

    Returns:
        (B, N, D), the heads side by side.
    """
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    mask = None if mask is None else mask[:, None, None]  # (B, 1, 1, M)
    if query.device.type == "cpu" and query.shape[-2] * key.shape[-2] <= PLAIN_ATTENTION:
        weights = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        if mask is not None:
            weights = weights.masked_fill(~mask, -math.inf)
        attended = weights.softmax(dim=-1).to(value.dtype) @ value
    else:
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)
