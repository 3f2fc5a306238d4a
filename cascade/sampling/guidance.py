"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float, *, channels: int) -> Tensor:
    """Push a prediction away from the unconditional one.

    Args:
        conditional: (B, C', H, W) output under the conditions.
        unconditional: (B, C', H, W) output without them, of the same noisy image.
        scale: 1 gives the conditional output.
        channels: how many leading channels are the prediction; learned variances behind them stay
            the conditional ones.

    Returns:
        (B, C', H, W).
    """
    guided = unconditional + scale * (conditional - unconditional)
    return torch.cat([guided[:, :channels], conditional[:, channels:]], dim=1)
