"""Features of a conditioning image from the lower layers of a trained classifier.

A small training set teaches a stage how things look, but not what they are. A classifier has
learned that from a million images (as in Larsson et al. 2016, arXiv 1603.06668, and Iizuka et al.
2016, for colours). Its layers are frozen: they are buffers, so that optimisers and weight averages
leave them alone. Only the projection of their features is trained.

Shapes: B images, H and W pixels, h and w pixels of the feature maps.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.networks.component import Component, keeps_config
from cascade.vision.efficientnet import EfficientNetTrunk, load_efficientnet

GROUPS = 5  # of EfficientNet-Lite0, with 0.7 M of its 4.7 M parameters: down to a 16th of the side
TAPS = (2, 4)  # groups whose outputs are used, at an 8th and a 16th of the side
BILINEAR: Any = {"mode": "bilinear", "align_corners": False}
WIDEST = 96  # channels of the largest maps, at half the side of the classifier's input
WIDEST_AT_ONCE = 3  # number of largest maps in memory at a time; 2.7 was measured
CLASSIFIER_PX = 192  # side of the classifier's input for images of the training size; its own: 224


class ImageEncoder(Component):
    """Extracts features of an image as channels for a U-Net.

    The classifier has random weights unless `pretrained` makes it or loading fills it.

    Args:
        channels: number of feature channels.
        scale: factor by which images are resized for the classifier, above 0 and at most 192.

    Raises:
        ValueError: if `scale` is out of range.
    """

    @keeps_config
    def __init__(self, channels: int = 32, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale <= CLASSIFIER_PX:
            raise ValueError(f"scale must be above 0 and at most {CLASSIFIER_PX}, got {scale}")
        self.scale = scale
        self.trunk = EfficientNetTrunk(size="lite0", groups=GROUPS)
        _freeze(self.trunk.eval())
        features = sum(self.trunk.channels[1 + tap] for tap in TAPS)
        self.norm = nn.GroupNorm(1, features)
        self.projection = nn.Conv2d(features, channels, 1)

    @classmethod
    def pretrained(cls, channels: int, size_px: int) -> ImageEncoder:
        """Make an encoder with the classifier's weights from its package, and a new projection.

        Args:
            channels: number of feature channels.
            size_px: longer side of the stage's images in pixels.

        Raises:
            WeightsError: if the package is missing, with the command that installs it.
        """
        encoder = cls(channels=channels, scale=CLASSIFIER_PX / size_px)
        with torch.device("cpu"):  # even if the stage is built on the meta device
            weights = load_efficientnet("lite0").state_dict()
        own = {name: weights[name] for name in encoder.trunk.state_dict()}
        encoder.trunk.load_state_dict(own, assign=True)
        return encoder

    def train(self, mode: bool = True) -> ImageEncoder:
        """Set the mode, except of the classifier: its batch norms keep their statistics."""
        super().train(mode)
        self.trunk.eval()
        return self

    def numbers_at_once(self, side_px: int) -> int:
        """An estimate of how many numbers a pass over one square image keeps in memory."""
        return WIDEST_AT_ONCE * WIDEST * math.ceil(self._classifier_px(side_px) / 2) ** 2

    def _classifier_px(self, side_px: int) -> int:
        return max(1, round(side_px * self.scale))

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Extract features.

        Args:
            image: (B, 1 or 3, H, W) in [-1, 1].
            size: h and w of the features.

        Returns:
            (B, channels, h, w).
        """
        with torch.no_grad():
            classifier_px = [self._classifier_px(side) for side in image.shape[-2:]]
            resized = F.interpolate(image.expand(-1, 3, -1, -1), size=classifier_px, **BILINEAR)
            taps = self.trunk.taps(resized.contiguous(memory_format=torch.channels_last))
            maps = [F.interpolate(taps[tap], size=size, **BILINEAR) for tap in TAPS]
        return self.projection(self.norm(torch.cat(maps, dim=1)))


def _freeze(module: nn.Module) -> None:
    """Turn all parameters into buffers."""
    for member in module.modules():
        for name, parameter in list(member._parameters.items()):
            if parameter is not None:
                del member._parameters[name]
                member.register_buffer(name, parameter.detach())
