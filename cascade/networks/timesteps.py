"""Sines and cosines of timesteps, and their embedding; names of weights as in diffusers.

Shapes: B batch, E embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def timestep_waves(
    t: Tensor, count: int, *, cosine_first: bool = True, shift: float = 0.0, longest: float = 10000
) -> Tensor:
    """Sines and cosines of numbers, after Vaswani et al. 2017 (arXiv 1706.03762).

    Args:
        t: (B,) numbers.
        count: number of waves, even.
        cosine_first: whether the cosines come before the sines.
        shift: what is taken from the number of wavelengths before they are spaced.
        longest: the longest wavelength, over 2 pi.

    Returns:
        (B, count) float32.
    """
    half = count // 2
    places = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(-math.log(longest) * places / (half - shift))
    angles = t[:, None].float() * frequencies[None]
    waves = [torch.sin(angles), torch.cos(angles)]
    return torch.cat(waves[::-1] if cosine_first else waves, dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with a SiLU between them: (B, in_channels) to (B, dim)."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, dim)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, waves: Tensor) -> Tensor:
        """Args: waves (B, in_channels). Returns: (B, dim)."""
        return self.linear_2(self.act(self.linear_1(waves)))
