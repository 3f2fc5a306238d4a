"""Degradation of an upsampler's small image in training, for damaged pictures (blind upscaling).

After Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3): blur, resizing, noise and JPEG,
in this order and twice over, as a picture meets them that is taken, saved, sent on and saved again.
The chain begins with the large image, as there: blur and noise from before a picture was made small
look otherwise than those from after. Crops of it are enough, so that it costs some milliseconds an
image. JPEG is the real one, by Pillow: differentiable imitations round softly, and leave a trace of
what a file has lost, from which a network would learn to cheat.

Every draw comes from the image's own seed, and images are worked on one by one, since each is
resized to a size of its own: the same seed gives the same damage, bit for bit, in any batch.

Shapes: B batch, H and W pixels of the large image, h and w of the small one.
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
GREY_NOISE_PROBABILITY = 0.4  # as in Real-ESRGAN; else each channel has noise of its own
SHOT_NOISE_PROBABILITY = 0.5
LOWEST_CUTOFF = 1 / 3  # of the sinc filter, as in Real-ESRGAN; 1 is the finest detail there is
SMALLEST_PX = 4
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """What is done to small images in training; ranges are drawn from uniformly, per image.

    Attributes:
        probability: of an image to be degraded at all; the others stay clean.
        orders: how often the chain is gone through.
        blur_sigma: width of the Gaussian blur along each of its two axes, in pixels of the large
            image; the axes lie at a random angle.
        sinc_probability: of a blur to be an ideal low-pass filter, which leaves ringing, instead.
        resize: factor of the size on the way: of the large image's, and the last time of the small
            image's. The kernel is a random one.
        noise: standard deviation, in steps of an 8-bit picture. Half of it is even, half shot
            noise, whose variance grows with brightness (this is then the value at white).
        jpeg_quality: 1 to 95; None for no JPEG.

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
        """Put degraded small images in the place of clean ones.

        Args:
            images: (B, 3, H, W) in [-1, 1], the large images.
            low_res: (B, 3, h, w) in [-1, 1], the clean small ones.
            kernel: with which a small image is made, at the end of the chain too.
            seeds: one per image.

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
        """One image (1, 3, H, W) gone through the whole chain: (1, 3, h, w)."""
        large_px = image.shape[-1]
        for order in range(self.orders):
            last = order == self.orders - 1
            drawn = iter(noise.uniform(12)[0].tolist())
            image = self._blurred(image, image.shape[-1] / large_px, drawn)
            image = self._resized(image, size_px if last else None, kernel, drawn)
            image = self._noised(image, noise, drawn)
            if last and next(drawn) < 0.5:  # half of the files were saved at their final size
                image = resize(image, size_px, kernel)
            if self.jpeg_quality is not None:
                image = jpeg(image, round(_between(self.jpeg_quality, next(drawn))))
        return resize(image, size_px, kernel)

    def _blurred(self, image: Tensor, scale: float, drawn: Iterator[float]) -> Tensor:
        is_sinc = next(drawn) < self.sinc_probability
        sigmas = [scale * _between(self.blur_sigma, next(drawn)) for _ in range(2)]
        angle, cutoff = next(drawn) * math.pi, _between((LOWEST_CUTOFF, 1.0), next(drawn))
        if is_sinc:
            return low_pass(image, cutoff)
        return gaussian_blur(image, (sigmas[0], sigmas[1]), angle)

    def _resized(
        self,
        image: Tensor,
        size_px: tuple[int, int] | None,
        kernel: ResizeKernel,
        drawn: Iterator[float],
    ) -> Tensor:
        factor = _between(self.resize, next(drawn))
        any_kernel = KERNELS[int(next(drawn) * len(KERNELS))]
        height, width = size_px or image.shape[-2:]
        size = tuple(max(SMALLEST_PX, round(side * factor)) for side in (height, width))
        return resize(image, (size[0], size[1]), kernel if size == size_px else any_kernel)

    def _noised(self, image: Tensor, noise: SeededNoise, drawn: Iterator[float]) -> Tensor:
        std = _between(self.noise, next(drawn)) / 127.5
        grey = next(drawn) < GREY_NOISE_PROBABILITY
        normal = noise.normal(1 if grey else 3, *image.shape[-2:])
        if next(drawn) < SHOT_NOISE_PROBABILITY:  # Poisson's variance; its shape hardly shows
            normal = normal * ((image + 1) / 2).clamp(0, 1).sqrt()
        return (image + std * normal).clamp(-1, 1)


def gaussian_blur(images: Tensor, sigmas: tuple[float, float], angle: float) -> Tensor:
    """Blur with a Gaussian whose two axes are turned by an angle.

    Done in the frequency domain, where any Gaussian is one product, whatever its width.

    Args:
        images: (B, C, H, W).
        sigmas: standard deviation along the first and second axis, in pixels.
        angle: of the first axis against the image's rows, in radians.

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
    """Take out all detail finer than a limit, which leaves ringing at edges (a sinc filter).

    Args:
        images: (B, C, H, W) in [-1, 1].
        cutoff: the finest frequency that stays, 1 being that of single pixels.

    Returns:
        (B, C, H, W), clamped to [-1, 1], since it overshoots.
    """
    filtered = _filtered(images, lambda y, x: (torch.hypot(y, x) <= cutoff / 2).float(), 16)
    return filtered.clamp(-1, 1)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Save as JPEG and read again.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        quality: 1 to 95.

    Returns:
        (B, 3, H, W) in [-1, 1], on the 256 values of an 8-bit file.
    """
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8)
    read = []
    for each in pixels.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(each).save(file, "JPEG", quality=quality)
        read.append(torch.from_numpy(np.array(Image.open(file))))
    return torch.stack(read).permute(0, 3, 1, 2).to(images) / 127.5 - 1


def _filtered(
    images: Tensor, response: Callable[[Tensor, Tensor], Tensor], margin_px: int
) -> Tensor:
    """Multiply frequencies (in cycles per pixel) by a response; borders are mirrored."""
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
