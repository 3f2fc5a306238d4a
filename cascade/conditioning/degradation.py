"""Degradation of an upsampler's low-resolution image in training, for blind upscaling.

After Real-ESRGAN (Wang et al. 2021, arXiv 2107.10833, section 3): blur, resizing, noise and
compression, in this order and perhaps twice, like a picture that is taken, saved, shared and saved
again; before them, the dots and the dust of a print that is scanned. Each kind of fault is one file
of `faults/`. As in Real-ESRGAN, the chain starts at the full-size image, because blur and noise
look different before and after downscaling. It works on crops and takes a few milliseconds an
image.

All draws come from the image's own seed, and each image is degraded on its own, since each is
resized to a different size: the same seed gives the same result, bit for bit, in any batch.

Shapes: B batch, C channels, H and W pixels of the full-size image, h and w of the low-resolution
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from cascade.conditioning.faults.blurs import Blur
from cascade.conditioning.faults.compression import UNKNOWN, Compression
from cascade.conditioning.faults.drawing import PROBABILITY, Uniform, between, check_ranges
from cascade.conditioning.faults.grain import Grain
from cascade.conditioning.faults.printing import Printing
from cascade.conditioning.jpeg_quality import NO_LOSS
from cascade.conditioning.noise_level import noise_between
from cascade.diffusion.noise import SeededNoise
from cascade.resizing import ResizeKernel, resize
from cascade.space import Range

KERNELS: tuple[ResizeKernel, ...] = ("bicubic", "bilinear", "area")
PARTS = {"blur": Blur, "noise": Grain, "compression": Compression, "printing": Printing}
DRAWS = 40  # uniform numbers that one pass may take
SMALLEST_PX = 4


class Degraded(NamedTuple):
    """Degraded images.

    Attributes:
        images: (B, 3, h, w) in [-1, 1].
        defects: (B, 2) what is wrong with each: standard deviation of the noise in 8-bit steps, 0
            for none, and quality of the last JPEG, 100 for none, NaN where it is unknown.
    """

    images: Tensor
    defects: Tensor


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How training degrades low-resolution images. Each image draws uniformly from the ranges.

    Attributes:
        probability: probability in [0, 1] that an image is degraded at all.
        orders: number of passes through the chain, 1 to 4.
        repeat_probability: probability in [0, 1] that a pass before the last one takes place.
        blur: how a pass blurs; see `Blur`.
        resize_probability: probability in [0, 1] that a pass goes through another size.
        resize: factor of that size, 0.05 to 4: relative to the full-size image, and in the last
            pass to the low-resolution image. The kernel is random.
        noise: how a pass adds noise; see `Grain`.
        compression: how a pass compresses; see `Compression`.
        printing: dots and dust, in the first pass; see `Printing`.

    Raises:
        ContractError: naming the value that is out of range.
    """

    probability: float = 1.0
    orders: int = 2
    repeat_probability: float = 1.0
    blur: Blur = field(default_factory=Blur)
    resize_probability: float = 1.0
    resize: Range = (0.3, 1.5)
    noise: Grain = field(default_factory=Grain)
    compression: Compression = field(default_factory=Compression)
    printing: Printing = field(default_factory=Printing)

    def __post_init__(self) -> None:
        for name, kind in PARTS.items():
            part = getattr(self, name)
            if isinstance(part, Mapping):  # when read from JSON
                object.__setattr__(self, name, kind(**part))
        names = ("probability", "repeat_probability", "resize_probability")
        limits = dict.fromkeys(names, PROBABILITY) | {"orders": (1.0, 4.0), "resize": (0.05, 4.0)}
        check_ranges("degradation", self, limits)

    @torch.no_grad()
    def degrade(
        self, images: Tensor, low_res: Tensor, kernel: ResizeKernel, seeds: Sequence[int]
    ) -> Degraded:
        """Degrade low-resolution images.

        Args:
            images: (B, 3, H, W) in [-1, 1], the full-size images, from which degraded ones are
                made.
            low_res: (B, 3, h, w) in [-1, 1], the clean low-resolution images, which are returned
                where an image is not degraded.
            kernel: kernel of the last downscaling.
            seeds: B whole numbers.
        """
        height, width = low_res.shape[-2:]
        result = low_res.clone()
        defects = torch.tensor([[0.0, NO_LOSS]]).repeat(len(images), 1)
        for place, seed in enumerate(seeds):
            noise = SeededNoise([seed], "degradation", device=images.device)
            if noise.uniform().item() < self.probability:
                image = images[place : place + 1].float()
                result[place], defects[place] = self._degraded(
                    image, (height, width), kernel, noise
                )
        return Degraded(result, defects)

    def _degraded(
        self, image: Tensor, size_px: tuple[int, int], kernel: ResizeKernel, noise: SeededNoise
    ) -> tuple[Tensor, Tensor]:
        """Pass one image (1, 3, H, W) through the whole chain: (3, h, w), and its defects (2,).

        Once there is noise, a copy without it goes along, which shows what remains of the noise.
        """
        images, full_px, quality = image, image.shape[-1], NO_LOSS
        for order in range(self.orders):
            is_last = order == self.orders - 1
            uniform = iter(noise.uniform(DRAWS)[0].tolist())
            if next(uniform) >= self.repeat_probability and not is_last:
                continue  # the last pass makes the size, so its faults are seen as they are
            if images is image:  # the first pass that takes place
                scale = images.shape[-1] / size_px[1]
                images = self.printing.apply(images, scale, noise, uniform)
            images = self.blur.apply(images, images.shape[-1] / full_px, uniform)
            images = self._resized(images, size_px if is_last else None, kernel, uniform)
            added = self.noise.draw(images[:1], noise, uniform)
            if added is not None:
                images = torch.cat([(images[:1] + added).clamp(-1, 1), images[-1:]])
            if is_last and next(uniform) < 0.5:  # half of the files are saved at their final size
                images = resize(images, size_px, kernel)
            images, latest = self.compression.apply(images, uniform)
            if latest != NO_LOSS:
                quality = latest
            elif quality != NO_LOSS:  # what an earlier file left was blurred and resized since
                quality = UNKNOWN
        is_resized = tuple(images.shape[-2:]) != size_px
        images = resize(images, size_px, kernel)
        quality = UNKNOWN if is_resized and quality != NO_LOSS else quality
        return images[0], torch.tensor([noise_between(images[0], images[-1]), quality])

    def _resized(
        self,
        images: Tensor,
        size_px: tuple[int, int] | None,
        kernel: ResizeKernel,
        uniform: Uniform,
    ) -> Tensor:
        is_resized = next(uniform) < self.resize_probability
        factor = between(self.resize, next(uniform)) if is_resized else 1.0
        any_kernel = KERNELS[int(next(uniform) * len(KERNELS))]
        height, width = size_px or images.shape[-2:]
        size = tuple(max(SMALLEST_PX, round(side * factor)) for side in (height, width))
        return resize(images, (size[0], size[1]), kernel if size == size_px else any_kernel)
