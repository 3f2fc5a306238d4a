"""Retrieval: how often an image is nearer to its own caption than to others.

R@k is the probability that the own caption is among the k nearest of N captions, the own one and
N - 1 that are drawn from all captions that could be mistaken for it. It is computed exactly, as the
mean over all draws, so it needs no seed, and an image has the same value in any set of images.

Shapes: B images, M captions, E width of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHOICES = 100


def better_captions(images: Tensor, captions: Tensor, own: Tensor, rivals: Tensor) -> Tensor:
    """Count the rivals of each image's own caption that are at least as near to the image.

    Args:
        images: (B, E) embeddings of length 1.
        captions: (M, E) embeddings of length 1.
        own: (B,) int64, place of each image's own caption.
        rivals: (B, M) bool, captions that could be drawn beside the own one.

    Returns:
        (B,) int64.
    """
    near = images.double() @ captions.double().T  # (B, M)
    return ((near >= near.gather(1, own[:, None])) & rivals).sum(dim=1)


def retrieval_rate(better: Tensor, rivals: Tensor, *, choices: int, nearest: int) -> Tensor:
    """Compute R@k for each image: the distribution function of the hypergeometric distribution.

    Args:
        better: (B,) int64, number of rivals that are at least as near as the own caption.
        rivals: (B,) int64, number of rivals, each at least `choices` - 1.
        choices: number N of captions to choose from, the own one included.
        nearest: number k of captions that count as retrieved, at least 1.

    Returns:
        (B,) float64 in [0, 1].
    """
    drawn = torch.full_like(better, choices - 1)
    logs = [
        _log_choose(better, torch.full_like(better, count))
        + _log_choose(rivals - better, drawn - count)
        - _log_choose(rivals, drawn)
        for count in range(min(nearest, choices))
    ]
    return torch.stack(logs).exp().sum(dim=0).clamp(0, 1)


def _log_choose(total: Tensor, part: Tensor) -> Tensor:
    """Logarithm of the number of ways to draw `part` of `total`; -inf if there is none."""
    total, part = total.double(), part.double()
    inside = (part >= 0) & (part <= total)
    part = part.where(inside, 0)
    ways = torch.lgamma(total + 1) - torch.lgamma(part + 1) - torch.lgamma(total - part + 1)
    return ways.where(inside, -torch.inf)
