"""A discriminator that judges patches of a picture (Isola et al. 2017, arXiv 1611.07004).

Shapes: B pictures, C channels, H and W pixels; h and w are H / 8 and W / 8, rounded down.
"""

from __future__ import annotations

from itertools import pairwise
from typing import final

from torch import Tensor, nn

from cascade.errors import ContractError
from cascade.space import Size

WIDTHS = (64, 128, 256)  # channels; each of these convolutions halves the size
GROUPS = 32
SMALLEST_PX = 2 ** len(WIDTHS)


@final
class PatchDiscriminator(nn.Module):
    """Says of patches of 38 x 38 px, 8 px apart, whether they are of a true picture.

    GroupNorm takes the place of the paper's BatchNorm, so that the pictures of a batch do not
    change each other's logits.

    Args:
        channels: number C of channels of a picture.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise((channels, *WIDTHS)):
            norm = [nn.GroupNorm(GROUPS, width)] if layers else []  # none after the first, as there
            conv = nn.Conv2d(before, width, kernel_size=4, stride=2, padding=1)
            layers += [conv, *norm, nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(WIDTHS[-1], 1, kernel_size=3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            pictures: (B, C, H, W), each side at least 8 px.

        Returns:
            Logits (B, 1, h, w), above 0 for patches of true pictures.
        """
        return self.layers(pictures)


def check_size(size: Size) -> None:
    """Check that a discriminator can judge pictures of a size.

    Args:
        size: height and width in pixels.

    Raises:
        ContractError: if they are too small.
    """
    if min(size) < SMALLEST_PX:
        raise ContractError(
            f"the discriminator needs images of at least {SMALLEST_PX}x{SMALLEST_PX} px, got "
            f"{size[0]}x{size[1]}; train on larger ones or crops, or with adversarial_weight 0."
        )
