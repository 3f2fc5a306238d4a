"""What a network is told besides the noisy image and the time.

Shapes: B batch, F label fields, C channels, h and w pixels of the conditioning image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch, ready for the network; None where the stage does not have one.

    Attributes:
        labels: (B, F) int64, one index per label field; -1 where it is dropped or unknown.
        image: (B, C, H, W) in [-1, 1] at the stage's own size, concatenated to the noisy image.
        level: (B,) noise-conditioning augmentation level of that image, in [0, 1].
        features: (B, E, h, w), what the network's encoder sees in that image; None before it looks.
    """

    labels: Tensor | None = None
    image: Tensor | None = None
    level: Tensor | None = None
    features: Tensor | None = None

    def concatenate(self, other: Conditions) -> Conditions:
        """Stack two batches of the same kinds of conditions, for one forward pass over both."""
        return Conditions(
            labels=_stacked(self.labels, other.labels),
            image=_stacked(self.image, other.image),
            level=_stacked(self.level, other.level),
            features=_stacked(self.features, other.features),
        )

    def dropped(self, labels: Tensor | bool = False, image: Tensor | bool = False) -> Conditions:
        """Leave out conditions, for training without them and for guidance.

        A dropped label is -1. A dropped image is zero at level 1, the level of pure noise, which
        says that there is nothing to be learned from it.

        Args:
            labels: which images lose their labels: (B, F) or (B, 1) bool, or all or none.
            image: which lose their conditioning image: (B,) bool, or all or none.
        """
        new_labels, new_image, new_level = self.labels, self.image, self.level
        if new_labels is not None:
            mask = torch.as_tensor(labels, device=new_labels.device)
            new_labels = torch.where(mask, torch.full_like(new_labels, -1), new_labels)
        if new_image is not None and new_level is not None:
            mask = torch.as_tensor(image, device=new_image.device).expand(new_level.shape)
            new_image = torch.where(mask.view(-1, 1, 1, 1), torch.zeros_like(new_image), new_image)
            new_level = torch.where(mask, torch.ones_like(new_level), new_level)
        features = self.features if image is False else None
        return Conditions(new_labels, new_image, new_level, features)


def _stacked(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return None
    return torch.cat([first, second])
