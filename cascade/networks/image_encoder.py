"""What a given image shows, told to a stage's network by the lower layers of a trained classifier.

Few pictures teach a stage how things look, but not what they are; a classifier has learned that
from a million (as in Larsson et al. 2016, arXiv 1603.06668, and Iizuka et al. 2016, for colours).
Its layers stay as they are: they are buffers, of which optimisers and averages know nothing. Only
the projection of what they say is trained.

Shapes: B images, H and W pixels, h and w of the maps that a network works on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from cascade.networks.efficientnet import EfficientNetTrunk, load_efficientnet

GROUPS = 5  # of EfficientNet-Lite0, 0.7 M of 4.7 M parameters: down to a 16th of the side
TAPS = (2, 4)  # what an 8th shows, and what a 16th does
BILINEAR: Any = {"mode": "bilinear", "align_corners": False}
WIDEST = 96  # channels of its largest maps, at half of what it is shown
WIDEST_AT_ONCE = 3  # of those that are in memory together; 2.7 measured
SEEN_PX = 192  # at which the classifier is shown images of the trained size; its own was 224


class ImageEncoder(ModelMixin, ConfigMixin):
    """Features of an image, as channels for a U-Net; without weights until `pretrained` or loading.

    Args:
        channels: of what it gives.
        scale: by which images are resized for the classifier, above 0 and at most 192.

    Raises:
        ValueError: if it is not.
    """

    @register_to_config
    def __init__(self, channels: int = 32, scale: float = 1.0) -> None:
        super().__init__()
        if not 0 < scale <= SEEN_PX:
            raise ValueError(f"scale must be above 0 and at most {SEEN_PX}, got {scale}")
        self.scale = scale
        self.trunk = EfficientNetTrunk(size="lite0", groups=GROUPS)
        _freeze(self.trunk.eval())
        features = sum(self.trunk.channels[1 + tap] for tap in TAPS)
        self.norm = nn.GroupNorm(1, features)
        self.projection = nn.Conv2d(features, channels, 1)

    @classmethod
    def pretrained(cls, channels: int, size_px: int) -> ImageEncoder:
        """With the classifier's weights from its package, and a new projection.

        Args:
            channels: of what it gives.
            size_px: side of the images that the stage is made for.

        Raises:
            WeightsError: if the package is missing, with the command that installs it.
        """
        encoder = cls(channels=channels, scale=SEEN_PX / size_px)
        with torch.device("cpu"):  # also where only the sizes of a stage are wanted
            given = load_efficientnet("lite0").state_dict()
        wanted = {name: given[name] for name in encoder.trunk.state_dict()}
        encoder.trunk.load_state_dict(wanted, assign=True)
        return encoder

    def train(self, mode: bool = True) -> ImageEncoder:
        """Set the mode of all but the classifier, whose averages stay as they are."""
        super().train(mode)
        self.trunk.eval()
        return self

    def numbers_at_once(self, side_px: int) -> int:
        """How many numbers are in memory together while it looks at a square image."""
        return WIDEST_AT_ONCE * WIDEST * math.ceil(self._seen_px(side_px) / 2) ** 2

    def _seen_px(self, side_px: int) -> int:
        return max(1, round(side_px * self.scale))

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Say what an image shows.

        Args:
            image: (B, 1 or 3, H, W) in [-1, 1].
            size: h and w of the network's maps.

        Returns:
            (B, channels, h, w).
        """
        with torch.no_grad():
            seen_px = [self._seen_px(side) for side in image.shape[-2:]]
            seen = F.interpolate(image.expand(-1, 3, -1, -1), size=seen_px, **BILINEAR)
            taps = self.trunk.taps(seen.contiguous(memory_format=torch.channels_last))
            maps = [F.interpolate(taps[tap], size=size, **BILINEAR) for tap in TAPS]
        return self.projection(self.norm(torch.cat(maps, dim=1)))


def _freeze(module: nn.Module) -> None:
    """Make buffers of all parameters."""
    for member in module.modules():
        for name, parameter in list(member._parameters.items()):
            if parameter is not None:
                del member._parameters[name]
                member.register_buffer(name, parameter.detach())
