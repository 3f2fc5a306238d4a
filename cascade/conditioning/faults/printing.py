"""Faults of prints and their scans: the dots of a halftone, dust and hairs.

Shapes: H and W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.conditioning.faults.drawing import PROBABILITY, Uniform, between, check_ranges
from cascade.diffusion.noise import SeededNoise
from cascade.space import Range

PERIOD: Range = (1.5, 4.0)  # of the dots, in low-resolution pixels
DEPTH: Range = (0.2, 1.0)
MOST_SPECKS = 6
LENGTH: Range = (0.0, 8.0)  # of a speck or hair, in low-resolution pixels
WIDTH: Range = (0.3, 0.9)  # likewise


@dataclass(frozen=True, kw_only=True)
class Printing:
    """How training makes scans of prints out of images.

    Attributes:
        halftone: probability in [0, 1] that an image consists of dots, which a screen at a random
            angle makes in the middle tones.
        dust: probability that up to six specks and hairs, white or black, lie on it.

    Raises:
        ContractError: naming the value that is out of range.
    """

    halftone: float = 0.0
    dust: float = 0.0

    def __post_init__(self) -> None:
        limits = {"halftone": PROBABILITY, "dust": PROBABILITY}
        check_ranges("degradation.printing", self, limits)

    def apply(self, image: Tensor, scale: float, noise: SeededNoise, uniform: Uniform) -> Tensor:
        """Draw dots and dust on an image.

        Args:
            image: (1, 3, H, W) in [-1, 1].
            scale: its size relative to the low-resolution image.
            noise: stream of the image, from which the places of the dust are drawn.
            uniform: five numbers are taken.

        Returns:
            (1, 3, H, W) in [-1, 1].
        """
        has_dots, has_dust = (next(uniform) < p for p in (self.halftone, self.dust))
        period_px = scale * between(PERIOD, next(uniform))
        angle, depth = next(uniform) * math.pi, between(DEPTH, next(uniform))
        if has_dots:
            image = halftone(image, period_px, angle, depth)
        if has_dust:
            image = dusty(image, noise.uniform(MOST_SPECKS, 6)[0], scale)
        return image


def halftone(image: Tensor, period_px: float, angle: float, depth: float) -> Tensor:
    """Print an image in dots: darker where a screen of waves is low, most in the middle tones.

    Args:
        image: (1, 3, H, W) in [-1, 1].
        period_px: distance of the dots.
        angle: angle between the rows of dots and those of the image, in radians.
        depth: strength in [0, 1].

    Returns:
        (1, 3, H, W) in [-1, 1].
    """
    y, x = _places(image)
    along = (math.cos(angle) * x + math.sin(angle) * y) * (2 * math.pi / period_px)
    across = (math.cos(angle) * y - math.sin(angle) * x) * (2 * math.pi / period_px)
    screen = (torch.cos(along) + torch.cos(across)) / 2  # in [-1, 1], of mean 0
    return (image + depth * screen * (1 - image**2)).clamp(-1, 1)


def dusty(image: Tensor, draws: Tensor, scale: float) -> Tensor:
    """Lay specks and hairs on an image.

    Args:
        image: (1, 3, H, W) in [-1, 1].
        draws: (specks, 6) uniform numbers; about half of the specks are left out.
        scale: pixels of the image per pixel of the low-resolution image.

    Returns:
        (1, 3, H, W) in [-1, 1].
    """
    y, x = _places(image)
    height, width = image.shape[-2:]
    for is_there, top, left, length, turn, size in draws.tolist():
        if is_there < 0.5:
            continue
        reach, angle = scale * between(LENGTH, length**3), turn * math.pi
        from_y, from_x = y - top * height, x - left * width
        along = (math.cos(angle) * from_x + math.sin(angle) * from_y).clamp(-reach / 2, reach / 2)
        distance = torch.hypot(from_x - math.cos(angle) * along, from_y - math.sin(angle) * along)
        cover = (scale * between(WIDTH, size) - distance + 0.5).clamp(0, 1)
        image = torch.lerp(image, torch.full_like(image, 1 if is_there < 0.8 else -1), cover)
    return image


def _places(image: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (H, 1) and columns (1, W) of all pixels."""
    height, width = image.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32, device=image.device)[:, None]
    return rows, torch.arange(width, dtype=torch.float32, device=image.device)[None]
