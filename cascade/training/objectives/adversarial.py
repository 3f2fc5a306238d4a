"""Adversarial losses of a stage and a discriminator by hinges (Lim & Ye 2017, arXiv 1705.02894).

Both networks learn in one backward pass, each by its own term alone: the stage's term sees the
discriminator's weights without gradient, and the discriminator's terms see the pictures so. The
weight of the stage's term is fixed. An adaptive one, the ratio of two norms of gradients (Esser et
al. 2021, arXiv 2012.09841), would depend on how a batch is split into parts and processes.

Shapes: B pictures, C channels, H and W pixels; h and w the size of the map of logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import relu


def deceiving_loss(discriminator: nn.Module, restored: Tensor) -> Tensor:
    """The loss of the stage: low where the discriminator takes its pictures for true ones.

    Args:
        discriminator: gives logits (B, 1, h, w), above 0 for true pictures; it gets no gradient.
        restored: (B, C, H, W), with the gradient of the stage.

    Returns:
        (B,), the negative mean logit of each picture.
    """
    weights = {name: each.detach() for name, each in discriminator.named_parameters()}
    return -functional_call(discriminator, weights, (restored,)).float().flatten(1).mean(dim=1)


def discerning_loss(discriminator: nn.Module, restored: Tensor, images: Tensor) -> Tensor:
    """The loss of the discriminator, the hinges max(0, 1 - D(true)) + max(0, 1 + D(restored)).

    Args:
        discriminator: gives logits (B, 1, h, w), above 0 for true pictures.
        restored: (B, C, H, W); they get no gradient.
        images: the true pictures (B, C, H, W).

    Returns:
        (B,), means over the logits of each picture.
    """
    of_true, of_restored = (discriminator(each.detach()).float() for each in (images, restored))
    return (relu(1 - of_true) + relu(1 + of_restored)).flatten(1).mean(dim=1)


@torch.no_grad()
def discerned(discriminator: nn.Module, restored: Tensor, images: Tensor) -> dict[str, float]:
    """The shares of patches that a discriminator takes for what they are, as meters.

    Args:
        discriminator: gives logits (B, 1, h, w), above 0 for true pictures.
        restored: (B, C, H, W).
        images: the true pictures (B, C, H, W).

    Returns:
        `discerned_true` and `discerned_restored`, each in [0, 1].
    """
    return {
        "discerned_true": float((discriminator(images) > 0).float().mean()),
        "discerned_restored": float((discriminator(restored) < 0).float().mean()),
    }
