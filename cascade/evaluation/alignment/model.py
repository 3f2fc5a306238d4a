"""AlignmentModel: puts images and texts into one space, where those that agree are near each other.

Shapes: B images, M texts, H and W pixels, E width of an embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor, nn


class AlignmentModel(ABC):
    """A network for images and one for texts that were trained together.

    Attributes:
        name: part of the names of figures, such as `R@1-CLIP-768/14`.
        resizing: how images are resized, in words.
        network: the module that holds the weights.
        has_clip_score: whether the similarity of its embeddings is a published figure.
        trained_on: keys of the pictures that it was trained on, which it does not judge.
        contrasts: the words that differ between captions, by value of an annotation, by annotation:
            `{"style": {"noto": "noto", "fluent-flat": "fluent flat"}}`.
    """

    name: str
    resizing: str
    network: nn.Module
    has_clip_score: bool = False
    trained_on: Collection[str] = ()
    contrasts: Mapping[str, Mapping[str, str]] = {}

    @abstractmethod
    def image_embeddings(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) in [-1, 1], rounded to 8 bits first: (B, E) of length 1."""

    @abstractmethod
    def text_embeddings(self, texts: Sequence[str]) -> Tensor:
        """Embed texts: (M, E) of length 1."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash everything that the embeddings depend on."""
