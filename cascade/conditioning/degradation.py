"""Degradation of an upsampler's low-resolution image in training, for blind upscaling.

After Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3): blur, resizing, noise and JPEG,
in this order and twice, like a picture that is taken, saved, shared and saved again. As in
Real-ESRGAN, the chain starts at the full-size image, because blur and noise look different before
and after downscaling. It works on crops and takes a few milliseconds an image. Pillow does the
JPEG: differentiable approximations round softly, so traces of what a real file has lost remain, and
the network would learn to read them.

All draws come from the image's own seed, and each image is degraded on its own, since each is
resized to a different size: the same seed gives the same result, bit for bit, in any batch.

Shapes: B batch, C channels, H and W pixels of the full-size image, h and w of the low-resolution
one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.resizing import ResizeKernel, resize

KERNELS: tuple[ResizeKernel, ...] = ("bicubic", "bilinear", "area")
GREY_NOISE_PROBABILITY = 0.4  # as in Real-ESRGAN; otherwise each channel has its own noise
SHOT_NOISE_PROBABILITY = 0.5
LOWEST_CUTOFF = 1 / 3  # of the sinc filter, as in Real-ESRGAN; 1 keeps the finest detail
SMALLEST_PX = 4
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How training degrades low-resolution images. Each image draws uniformly from the ranges.

    Attributes:
        probability: probability in [0, 1] that an image is degraded at all.
        orders: number of passes through the chain, 1 to 4.
        blur_sigma: standard deviation of the Gaussian blur along each of its two axes, in pixels of
            the full-size image, 0 to 20; the axes lie at a random angle.
        sinc_probability: probability in [0, 1] that a blur is an ideal low-pass filter, which
            leaves ringing, instead of a Gaussian.
        resize: factor of the intermediate size, 0.05 to 4: relative to the full-size image, and in
            the last pass to the low-resolution image. The kernel is random.
        noise: standard deviation in 8-bit steps, 0 to 255. Half of the images get uniform noise,
            half shot noise, whose variance grows with brightness (`noise` then holds at white).
        jpeg_quality: quality of the JPEG file, 1 to 95; None for no JPEG.

    Raises:
        ContractError: naming the value that is out of range.
    """

    probability: float = 1.0
    orders: int = 2
    blur_sigma: Range = (0.2, 3.0)
    sinc_probability: float = 0.1
    resize: Range = (0.3, 1.5)
    noise: Range = (1.0, 25.0)
    jpeg_quality: Range | None = (30.0, 95.0)

    def __post_init__(self) -> None:
        for name in ("blur_sigma", "resize", "noise", "jpeg_quality"):
            if getattr(self, name) is not None:
                low, high = getattr(self, name)
                object.__setattr__(self, name, (low, high))  # a list, when read from JSON
        limits = {
            "probability": (0, 1),
            "orders": (1, 4),
            "blur_sigma": (0, 20),
            "sinc_probability": (0, 1),
            "resize": (0.05, 4),
            "noise": (0, 255),
            "jpeg_quality": (1, 95),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            low, high = value if isinstance(value, tuple) else (value, value)
            if value is not None and not least <= low <= high <= most:
                raise ContractError(
                    f"degradation.{name} must be within {least} and {most}, low end first, got "
                    f"{value}."
                )

    @torch.no_grad()
    def apply(
        self, images: Tensor, low_res: Tensor, kernel: ResizeKernel, seeds: Sequence[int]
    ) -> Tensor:
        """Degrade low-resolution images.

        Args:
            images: (B, 3, H, W) in [-1, 1], the full-size images, from which degraded ones are
                made.
            low_res: (B, 3, h, w) in [-1, 1], the clean low-resolution images, which are returned
                where an image is not degraded.
            kernel: kernel of the last downscaling.
            seeds: B whole numbers.

        Returns:
            (B, 3, h, w) in [-1, 1].
        """
        height, width = low_res.shape[-2:]
        result = low_res.clone()
        for place, seed in enumerate(seeds):
            noise = SeededNoise([seed], "degradation", device=images.device)
            if noise.uniform().item() < self.probability:
                image = images[place : place + 1].float()
                result[place] = self._degraded(image, (height, width), kernel, noise)[0]
        return result

    def _degraded(
        self, image: Tensor, size_px: tuple[int, int], kernel: ResizeKernel, noise: SeededNoise
    ) -> Tensor:
        """Pass one image (1, 3, H, W) through the whole chain: (1, 3, h, w)."""
        full_px = image.shape[-1]
        for order in range(self.orders):
            is_last = order == self.orders - 1
            uniform = iter(noise.uniform(12)[0].tolist())
            image = self._blurred(image, image.shape[-1] / full_px, uniform)
            image = self._resized(image, size_px if is_last else None, kernel, uniform)
            image = self._noised(image, noise, uniform)
            if is_last and next(uniform) < 0.5:  # half of the files are saved at their final size
                image = resize(image, size_px, kernel)
            if self.jpeg_quality is not None:
                image = jpeg(image, round(_between(self.jpeg_quality, next(uniform))))
        return resize(image, size_px, kernel)

    def _blurred(self, image: Tensor, scale: float, uniform: Iterator[float]) -> Tensor:
        is_sinc = next(uniform) < self.sinc_probability
        sigmas = [scale * _between(self.blur_sigma, next(uniform)) for _ in range(2)]
        angle, cutoff = next(uniform) * math.pi, _between((LOWEST_CUTOFF, 1.0), next(uniform))
        if is_sinc:
            return low_pass(image, cutoff)
        return gaussian_blur(image, (sigmas[0], sigmas[1]), angle)

    def _resized(
        self,
        image: Tensor,
        size_px: tuple[int, int] | None,
        kernel: ResizeKernel,
        uniform: Iterator[float],
    ) -> Tensor:
        factor = _between(self.resize, next(uniform))
        any_kernel = KERNELS[int(next(uniform) * len(KERNELS))]
        height, width = size_px or image.shape[-2:]
        size = tuple(max(SMALLEST_PX, round(side * factor)) for side in (height, width))
        return resize(image, (size[0], size[1]), kernel if size == size_px else any_kernel)

    def _noised(self, image: Tensor, noise: SeededNoise, uniform: Iterator[float]) -> Tensor:
        std = _between(self.noise, next(uniform)) / 127.5
        is_grey = next(uniform) < GREY_NOISE_PROBABILITY
        normal = noise.normal(1 if is_grey else 3, *image.shape[-2:])
        if next(uniform) < SHOT_NOISE_PROBABILITY:  # Poisson's variance; its shape hardly shows
            normal = normal * ((image + 1) / 2).clamp(0, 1).sqrt()
        return (image + std * normal).clamp(-1, 1)


def gaussian_blur(images: Tensor, sigmas: tuple[float, float], angle: float) -> Tensor:
    """Blur with a Gaussian whose two axes are rotated by an angle.

    It works in the frequency domain, where a Gaussian of any width is one product.

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

    return _filtered(images, response, math.ceil(3 * max(sigmas)))


def low_pass(images: Tensor, cutoff: float) -> Tensor:
    """Remove all detail finer than a limit, which leaves ringing at edges (a sinc filter).

    Args:
        images: (B, C, H, W) in [-1, 1].
        cutoff: highest frequency that remains, in (0, 1]; 1 is that of single pixels.

    Returns:
        (B, C, H, W), clamped to [-1, 1] because the filter overshoots.
    """
    filtered = _filtered(images, lambda y, x: (torch.hypot(y, x) <= cutoff / 2).float(), 16)
    return filtered.clamp(-1, 1)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Encode images as JPEG and decode them.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        quality: quality of the file, 1 to 95.

    Returns:
        (B, 3, H, W) in [-1, 1], with the 256 values of an 8-bit file.
    """
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    decoded = []
    for each in pixels.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(each).save(file, "JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(file))))
    return torch.stack(decoded).permute(0, 3, 1, 2).to(images) / 127.5 - 1


def _filtered(
    images: Tensor, response: Callable[[Tensor, Tensor], Tensor], margin_px: int
) -> Tensor:
    """Multiply frequencies, in cycles per pixel, by a response; borders are mirrored."""

    height, width = images.shape[-2:]
    rows, columns = min(margin_px, height - 1), min(margin_px, width - 1)
    padded = F.pad(images, (columns, columns, rows, rows), mode="reflect")
    size = padded.shape[-2:]
    y = torch.fft.fftfreq(size[0], device=images.device)[:, None]
    x = torch.fft.rfftfreq(size[1], device=images.device)[None]
    filtered = torch.fft.irfft2(torch.fft.rfft2(padded) * response(y, x), s=size)
    return filtered[..., rows : rows + height, columns : columns + width]


def _between(ends: Range, share: float) -> float:
    low, high = ends
    return low + (high - low) * share
