"""The last level of the pixel transformer: convolutions that turn its pixels into the prediction.

A head that sees more than a few pixels frees the transformer from drawing details: PixelDiT
(arXiv 2511.20645), DiP (arXiv 2511.18822) and DeCo (arXiv 2511.19365) agree on it. Ours is a small
U-Net as in DiP: its blocks work at half the resolution, where they see twice as far for less time.

Shapes: B batch, C channels, H and W pixels, D width of the condition.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionalHead(nn.Module):
    """Turns the tokens' pixels and the input into the prediction.

    Args:
        in_channels: number of channels of the input.
        head_channels: number of channels of the tokens' pixels.
        out_channels: number of channels of the prediction.
        blocks: number of residual blocks at half the resolution; 0 for two 3x3 convolutions only.
        condition_width: width D of the condition, which modulates the blocks.
    """

    def __init__(
        self,
        in_channels: int,
        head_channels: int,
        out_channels: int,
        *,
        blocks: int,
        condition_width: int,
    ) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_channels + head_channels, head_channels, 3, padding=1)
        self.out = nn.Conv2d(head_channels, out_channels, 3, padding=1)
        self.details = Details(head_channels, blocks, condition_width) if blocks else None
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, sample: Tensor, pixels: Tensor, condition: Tensor) -> Tensor:
        """Args: sample (B, in, H, W), pixels (B, head, H, W), condition (B, D).

        Returns: (B, out, H, W).
        """
        mixed = F.silu(self.mix(torch.cat([sample.to(pixels.dtype), pixels], dim=1))) + pixels
        if self.details is not None:
            mixed = mixed + self.details(mixed, condition)
        return self.out(mixed)


class Details(nn.Module):
    """Residual blocks at half the resolution; their sum with the input starts as the input."""

    def __init__(self, channels: int, blocks: int, condition_width: int) -> None:
        super().__init__()
        width = 2 * channels
        self.down = nn.Conv2d(channels, width, 2, stride=2)
        self.modulation = nn.Linear(condition_width, 2 * width, bias=False)
        self.blocks = nn.ModuleList(DetailBlock(width) for _ in range(blocks))
        self.up = nn.Conv2d(width, 4 * channels, 1)
        for parameter in (self.modulation.weight, *self.up.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, pixels: Tensor, condition: Tensor) -> Tensor:
        """Args: pixels (B, C, H, W), condition (B, D). Returns: (B, C, H, W)."""
        modulation = self.modulation(condition)[..., None, None]  # (B, 4 C, 1, 1)
        half = self.down(pixels)  # (B, 2 C, H / 2, W / 2)
        for block in self.blocks:
            half = block(half, modulation)
        return F.pixel_shuffle(self.up(half), 2)


class DetailBlock(nn.Module):
    """Two 3x3 convolutions behind an RMS norm that time and conditions modulate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation_offset = nn.Parameter(torch.zeros(2 * width))
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor, modulation: Tensor) -> Tensor:
        """Args: features (B, W, h, w), modulation (B, 2 W, 1, 1). Returns: (B, W, h, w)."""
        offset = self.modulation_offset.to(modulation.dtype)[:, None, None]
        shift, scale = (modulation + offset).chunk(2, dim=1)
        normalised = self.norm(features.movedim(1, -1)).movedim(-1, 1)
        return features + self.outer(F.silu(self.inner(normalised * (1 + scale) + shift)))
