"""One vector for all the conditions that are not images.

Class labels and the augmentation level are summed before the network sees them, since diffusers'
U-Net has one slot (`class_embed_type="projection"`) where a cascade needs both.

Shapes: B batch, F label fields, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from torch import Tensor, nn


class ConditionEmbedding(ModelMixin, ConfigMixin):
    """Sum of the embeddings of the labels and of the augmentation level.

    Args:
        label_sizes: number of classes of each label field; a further row stands for "dropped".
        level: whether the stage has a conditioning image with an augmentation level.
        dim: length E of the vector.
    """

    @register_to_config
    def __init__(
        self, *, label_sizes: Sequence[int] = (), level: bool = False, dim: int = 256
    ) -> None:
        super().__init__()
        tables = [nn.Embedding(size + 1, dim) for size in label_sizes]
        self.tables = nn.ModuleList(tables)
        self.level_embedding = TimestepEmbedding(256, dim) if level else None
        for table in tables:
            nn.init.normal_(table.weight, std=0.5)

    @property
    def label_sizes(self) -> list[int]:
        """Number of classes of each label field."""
        return list(self.config["label_sizes"])

    def forward(self, labels: Tensor | None, level: Tensor | None) -> Tensor:
        """Embed conditions.

        Args:
            labels: (B, F) int64, -1 where dropped; None if there are no label fields.
            level: (B,) in [0, 1]; None if there is no augmentation level.

        Returns:
            (B, E).
        """
        parts = []
        if labels is not None:
            for field, size in enumerate(self.config["label_sizes"]):
                index = labels[:, field]
                parts.append(self.tables[field](torch.where(index < 0, size, index)))
        if self.level_embedding is not None and level is not None:
            waves = get_timestep_embedding(level * 1000, 256, flip_sin_to_cos=True)
            parts.append(self.level_embedding(waves.to(self.level_embedding.linear_1.weight.dtype)))
        return torch.stack(parts).sum(dim=0)
