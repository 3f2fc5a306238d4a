"""Blur: Gaussian, out of focus, by motion, or by an ideal low-pass filter, which leaves ringing.

All work in the frequency domain, where a filter of any width is one product.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.faults.drawing import PROBABILITY, Uniform, between, check_ranges
from cascade.space import Range

LOWEST_CUTOFF = 1 / 3  # of the sinc filter, as in Real-ESRGAN; 1 keeps the finest detail


@dataclass(frozen=True, kw_only=True)
class Blur:
    """How training blurs images.

    Attributes:
        probability: probability in [0, 1] that an image is blurred.
        sigma: standard deviation of the blur along each of its axes, in pixels of the full-size
            image, 0 to 20. A Gaussian has two axes, which lie at a random angle; a disc out of
            focus has the first sigma all around; motion has it along its direction.
        sinc: probability in [0, 1] that a blur is an ideal low-pass filter, which leaves ringing.
        defocus: probability that it is a disc.
        motion: probability that it is motion. The others are Gaussian.

    Raises:
        ContractError: naming the value that is out of range.
    """

    probability: float = 1.0
    sigma: Range = (0.2, 3.0)
    sinc: float = 0.1
    defocus: float = 0.0
    motion: float = 0.0

    def __post_init__(self) -> None:
        limits = dict.fromkeys(("probability", "sinc", "defocus", "motion"), PROBABILITY)
        check_ranges("degradation.blur", self, limits | {"sigma": (0.0, 20.0)})

    def apply(self, images: Tensor, scale: float, uniform: Uniform) -> Tensor:
        """Blur images (B, C, H, W) alike.

        Args:
            images: in [-1, 1].
            scale: their size relative to the full-size image.
            uniform: six numbers are taken.
        """
        is_blurred, kind = next(uniform) < self.probability, next(uniform)
        sigmas = [scale * between(self.sigma, next(uniform)) for _ in range(2)]
        angle, cutoff = next(uniform) * math.pi, between((LOWEST_CUTOFF, 1.0), next(uniform))
        if not is_blurred:
            return images
        if kind < self.sinc:
            return low_pass(images, cutoff)
        if kind < self.sinc + self.defocus:
            return defocus_blur(images, sigmas[0])
        if kind < self.sinc + self.defocus + self.motion:
            return motion_blur(images, sigmas[0], angle)
        return gaussian_blur(images, (sigmas[0], sigmas[1]), angle)


def gaussian_blur(images: Tensor, sigmas: tuple[float, float], angle: float) -> Tensor:
    """Blur with a Gaussian whose two axes are rotated by an angle.

    Args:
        images: (B, C, H, W).
        sigmas: standard deviation along the first and second axis, in pixels.
        angle: angle between the first axis and the image's rows, in radians.

    Returns:
        (B, C, H, W).
    """

    def response(y: Tensor, x: Tensor) -> Tensor:
        along = math.cos(angle) * x + math.sin(angle) * y
        across = math.cos(angle) * y - math.sin(angle) * x
        exponent = (sigmas[0] * along) ** 2 + (sigmas[1] * across) ** 2
        return torch.exp(-2 * math.pi**2 * exponent)

    return filtered(images, response, math.ceil(3 * max(sigmas)))


def defocus_blur(images: Tensor, sigma: float) -> Tensor:
    """Spread every point over a disc, as a lens out of focus does.

    Args:
        images: (B, C, H, W).
        sigma: standard deviation along each axis, in pixels: half of the disc's radius.

    Returns:
        (B, C, H, W).
    """

    def response(y: Tensor, x: Tensor) -> Tensor:
        angle = (4 * math.pi * sigma * torch.hypot(y, x)).clamp(min=1e-6)
        return 2 * torch.special.bessel_j1(angle) / angle

    return filtered(images, response, math.ceil(3 * sigma))


def motion_blur(images: Tensor, sigma: float, angle: float) -> Tensor:
    """Spread every point along a line, as a moving camera does.

    Args:
        images: (B, C, H, W).
        sigma: standard deviation along the line, in pixels: its length is the root of 12 times it.
        angle: angle between the line and the image's rows, in radians.

    Returns:
        (B, C, H, W).
    """
    length_px = math.sqrt(12) * sigma

    def response(y: Tensor, x: Tensor) -> Tensor:
        return torch.sinc(length_px * (math.cos(angle) * x + math.sin(angle) * y))

    return filtered(images, response, math.ceil(2 * sigma))


def low_pass(images: Tensor, cutoff: float) -> Tensor:
    """Remove all detail finer than a limit, which leaves ringing at edges (a sinc filter).

    Args:
        images: (B, C, H, W) in [-1, 1].
        cutoff: highest frequency that remains, in (0, 1]; 1 is that of single pixels.

    Returns:
        (B, C, H, W), clamped to [-1, 1] because the filter overshoots.
    """
    passed = filtered(images, lambda y, x: (torch.hypot(y, x) <= cutoff / 2).float(), 16)
    return passed.clamp(-1, 1)


def filtered(
    images: Tensor, response: Callable[[Tensor, Tensor], Tensor], margin_px: int
) -> Tensor:
    """Multiply the frequencies of images by a response; borders are mirrored.

    Args:
        images: (B, C, H, W).
        response: returns the factors for frequencies along y and x, in cycles per pixel.
        margin_px: how far the filter reaches.

    Returns:
        (B, C, H, W).
    """
    height, width = images.shape[-2:]
    rows, columns = min(margin_px, height - 1), min(margin_px, width - 1)
    padded = F.pad(images, (columns, columns, rows, rows), mode="reflect")
    size = padded.shape[-2:]
    y = torch.fft.fftfreq(size[0], device=images.device)[:, None]
    x = torch.fft.rfftfreq(size[1], device=images.device)[None]
    spread = torch.fft.irfft2(torch.fft.rfft2(padded) * response(y, x), s=size)
    return spread[..., rows : rows + height, columns : columns + width]
