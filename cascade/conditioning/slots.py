"""Slots: how a condition enters the network, as channels, a vector or tokens.

Shapes: B batch, F label fields.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Classes:
    """A vector slot for class indices (B, F), one per label field; -1 stands for "any".

    Attributes:
        sizes: number of classes of each of the F fields.
    """

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """A vector slot for one number (B,) in [0, 1] per image."""


@dataclass(frozen=True)
class Dense:
    """A vector slot for embeddings (B, width) that another model computed.

    Attributes:
        width: length of an embedding.
    """

    width: int


VectorSlot = Classes | Level | Dense


@dataclass(frozen=True, kw_only=True)
class Slots:
    """How a condition enters the network.

    Attributes:
        channels: number of channels concatenated to the noisy image; 0 for none.
        vector: the vector that is embedded and added to the time embedding; None for none.
        tokens: width of the tokens that the network attends to; 0 for none.
        spread: number of tokens that the network makes of each of them.
    """

    channels: int = 0
    vector: VectorSlot | None = None
    tokens: int = 0
    spread: int = 1
