"""One embedding for the vectors of all conditions.

The embeddings of class labels, augmentation levels and dense vectors are summed, because a U-Net of
diffusers takes a single vector (`class_embed_type="projection"`).

Shapes: B batch, F label fields, E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from cascade.conditioning.slots import Classes, Dense, Level, Slots, VectorSlot
from cascade.networks.component import Component, keeps_config
from cascade.networks.timesteps import TimestepEmbedding, timestep_waves

WAVES = 256  # number of sines and cosines of a level
SLOTS: dict[str, type[VectorSlot]] = {"classes": Classes, "level": Level, "dense": Dense}


class ConditionEmbedding(Component):
    """The sum of the embeddings of all conditions' vectors.

    Args:
        vectors: kind and values of each condition's `VectorSlot` by its name, such as
            `{"labels": {"kind": "classes", "sizes": [17, 5]}}`; see `vectors_of`.
        dim: length E of the sum.
    """

    @keeps_config
    def __init__(self, *, vectors: Mapping[str, Mapping[str, Any]], dim: int = 256) -> None:
        super().__init__()
        self.slots = {name: _slot(values) for name, values in vectors.items()}
        self.parts = nn.ModuleDict({name: _part(each, dim) for name, each in self.slots.items()})

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Embed the vectors of a batch.

        Args:
            vectors: by name of condition: indices (B, F) int64 with -1 for "any", levels (B,) in
                [0, 1], or dense vectors (B, width).

        Returns:
            (B, E).
        """
        parts = []
        for name, slot in self.slots.items():
            part, value = self.parts[name], vectors[name]
            if isinstance(slot, Classes):
                assert isinstance(part, nn.ModuleList)
                for table, size, index in zip(part, slot.sizes, value.T, strict=True):
                    parts.append(table(torch.where(index < 0, size, index)))
            elif isinstance(slot, Level):
                waves = timestep_waves(value * 1000, WAVES, shift=1)
                parts.append(part(waves.to(self.dtype)))
            else:
                parts.append(part(value.to(self.dtype)))
        return torch.stack(parts).sum(dim=0)


def vectors_of(slots: Mapping[str, Slots]) -> dict[str, dict[str, Any]]:
    """The argument `vectors` of an embedding for the slots of a stage's conditions."""
    kinds = {slot: kind for kind, slot in SLOTS.items()}
    return {
        name: {"kind": kinds[type(each.vector)], **_plain(asdict(each.vector))}
        for name, each in slots.items()
        if each.vector is not None
    }


def embedding_for(slots: Mapping[str, Slots], dim: int) -> ConditionEmbedding | None:
    """Make a new embedding of length `dim`; None if no condition has a vector."""
    vectors = vectors_of(slots)
    return ConditionEmbedding(vectors=vectors, dim=dim) if vectors else None


def _slot(values: Mapping[str, Any]) -> VectorSlot:
    rest = {name: value for name, value in values.items() if name != "kind"}
    if "sizes" in rest:  # a list, when read from JSON
        rest["sizes"] = tuple(rest["sizes"])
    return SLOTS[values["kind"]](**rest)


def _part(slot: VectorSlot, dim: int) -> nn.Module:
    if isinstance(slot, Level):
        return TimestepEmbedding(WAVES, dim)
    if isinstance(slot, Dense):
        linear = nn.Linear(slot.width, dim)
        for parameter in linear.parameters():  # a new vector changes nothing at first
            nn.init.zeros_(parameter)
        return linear
    tables = [nn.Embedding(size + 1, dim) for size in slot.sizes]  # the last row stands for "any"
    for table in tables:
        nn.init.normal_(table.weight, std=0.5)
    return nn.ModuleList(tables)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
