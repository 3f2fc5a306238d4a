"""Noise of cameras and grain of film.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.conditioning.faults.drawing import PROBABILITY, Uniform, between, check_ranges
from cascade.diffusion.noise import SeededNoise
from cascade.space import UNITS_8_BIT, Range

LOW_STDS = 1.5  # power of the uniform number; above 1, low values are more frequent
GREY_PROBABILITY = 0.4  # as in Real-ESRGAN; other noise has some colour, up to channels apart
SHOT_PROBABILITY = 0.3
FILM_PROBABILITY = 0.3
LEAST_STRENGTH = 0.3  # of noise that depends on brightness: scanners and cameras add some of theirs
WHITE_PROBABILITY = 0.5  # of noise whose grains may have a size


@dataclass(frozen=True, kw_only=True)
class Grain:
    """How training adds noise to images.

    Noise is equally strong everywhere, or shot noise, whose variance grows with brightness, or that
    of film, which is strongest in the middle tones.

    Attributes:
        probability: probability in [0, 1] that an image gets noise.
        std: standard deviation in 8-bit steps, 0 to 255, at white for shot noise and at middle grey
            for film. Low values are more frequent.
        size_px: standard deviation of a Gaussian with which neighbouring pixels are correlated, as
            grains of film larger than a pixel are, 0 to 4; half of the images get white noise
            instead.

    Raises:
        ContractError: naming the value that is out of range.
    """

    probability: float = 1.0
    std: Range = (1.0, 25.0)
    size_px: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        limits = {"probability": PROBABILITY, "std": (0.0, 255.0), "size_px": (0.0, 4.0)}
        check_ranges("degradation.noise", self, limits)

    def draw(self, image: Tensor, noise: SeededNoise, uniform: Uniform) -> Tensor | None:
        """Draw noise for an image (1, 3, H, W) in [-1, 1]; None if it gets none.

        Args:
            image: it is not changed.
            noise: stream of the image.
            uniform: seven numbers are taken.
        """
        is_noisy = next(uniform) < self.probability
        std = between(self.std, next(uniform) ** LOW_STDS) / UNITS_8_BIT
        size_px = between(self.size_px, next(uniform)) * (next(uniform) >= WHITE_PROBABILITY)
        is_grey, colour, tone = next(uniform) < GREY_PROBABILITY, next(uniform), next(uniform)
        if not is_noisy:
            return None
        field = noise.normal(1 if is_grey else 4, *image.shape[-2:])
        if not is_grey:  # a part that all channels share, and a part of each channel's own
            field = math.sqrt(1 - colour**2) * field[:, :1] + colour * field[:, 1:]
        if size_px > 0:
            field = correlated(field, size_px)
        return std * field * _strength((image + 1) / 2, tone)


def correlated(field: Tensor, size_px: float) -> Tensor:
    """Smooth white noise (1, C, H, W) with a Gaussian and keep its standard deviation."""
    y = torch.fft.fftfreq(field.shape[-2], device=field.device)[:, None]
    x = torch.fft.rfftfreq(field.shape[-1], device=field.device)[None]
    response = torch.exp(-2 * math.pi**2 * size_px**2 * (y**2 + x**2))
    smooth = torch.fft.irfft2(torch.fft.rfft2(field) * response, s=field.shape[-2:])
    remaining = torch.fft.irfft2(response, s=field.shape[-2:]).square().sum()  # of the variance
    return smooth / remaining.sqrt()


def _strength(brightness: Tensor, tone: float) -> Tensor | float:
    """The standard deviation of noise, relative to its largest, at a brightness in [0, 1]."""
    brightness = brightness.clamp(0, 1)
    if tone < SHOT_PROBABILITY:  # Poisson's variance; its shape hardly shows
        changing = brightness.sqrt()
    elif tone < SHOT_PROBABILITY + FILM_PROBABILITY:
        changing = 2 * (brightness * (1 - brightness)).sqrt()
    else:
        return 1.0
    return LEAST_STRENGTH + (1 - LEAST_STRENGTH) * changing
