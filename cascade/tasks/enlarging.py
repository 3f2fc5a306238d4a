"""Upscaling: upsamplers enlarge pictures of any size.

Shapes: B images, C channels, H and W pixels of the result, h and w of the low-resolution image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.resizing import ResizeKernel, quantise, resize
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.space import UNITS_8_BIT, Space
from cascade.stage import Stage
from cascade.tasks.task import PairedTask, PairFigure

IMAGE = LowResolution.input_name
CONSISTENCY = "LR-consistency, 8-bit squared"


@final
class EnlargingTask(PairedTask):
    """The first stage is an upsampler; users call `cascade upscale` or `pipeline.upscale`."""

    name = "upscale"
    description = "upscales images"
    hub_type = "image-to-image"
    hub_title = "Super-resolution"
    baseline_name = "bicubic"
    hub_tag = "image-super-resolution"
    example = ('pipeline.upscale(Image.open("image.png")).show()',)

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return contracts[0].condition(LowResolution.name) is not None and contracts[0].scale > 1

    def command(self, folder: str) -> str:
        return f"cascade upscale IMAGE --model {folder} -o large.png"

    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        upscaling = Upscaling(seed=seed, inputs=inputs.with_value(IMAGE, None).values)
        return upscale_image(stages, inputs.get(IMAGE)[0], upscaling)

    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        return resize(inputs.get(IMAGE), space.size, "bicubic")[0]

    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        first = contracts[0]
        if first.restores:  # its results should not agree with degraded inputs
            return {}
        kernel = first.space.resize_kernel
        if first.space.has_bands:
            return {
                f"LR-consistency, band {band + 1}, % of its range": partial(
                    _band_error, band=band, kernel=kernel
                )
                for band in range(first.space.channels)
            }
        return {
            CONSISTENCY: lambda result, inputs: float(
                low_res_error(result, inputs.get(IMAGE), kernel)
            )
        }


def _band_error(result: Tensor, inputs: Inputs, *, band: int, kernel: ResizeKernel) -> float:
    """Root mean square error of a downscaled band in percent of its range."""
    image = inputs.get(IMAGE)[:, band : band + 1]
    small = resize(result[:, band : band + 1], (image.shape[-2], image.shape[-1]), kernel)
    return float((small - image).square().mean().sqrt()) * 50


def low_res_error(images: Tensor, low_res: Tensor, kernel: ResizeKernel = "bicubic") -> Tensor:
    """Measure LR-consistency: how far results, downscaled again, are from their inputs.

    The rounding of results to 8 bits alone gives about 0.01.

    Args:
        images: (B, C, H, W) in [-1, 1], results.
        low_res: (B, C, h, w) in [-1, 1], the inputs.
        kernel: kernel of the antialiased resizing.

    Returns:
        (B,) mean squared error in squared levels of 255.
    """
    small = resize(quantise(images), (low_res.shape[-2], low_res.shape[-1]), kernel)
    return ((small - low_res) * UNITS_8_BIT).square().flatten(1).mean(dim=1)
