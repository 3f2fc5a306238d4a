"""Colouring: grey pictures of any size get colours, and upsamplers of the pipeline enlarge them.

Users do this in two steps: `pipeline.colourise`, which keeps the size, then `pipeline.upscale`.

Shapes: B images, C channels, H and W pixels of the result, h and w of the grey image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.luminance import Luminance, luminance
from cascade.contract import Contract
from cascade.resizing import ResizeKernel, resize
from cascade.restoration.colouring import Colouring, colourise_image
from cascade.space import UNITS_8_BIT, Space
from cascade.stage import Stage
from cascade.tasks.following import then_enlarged
from cascade.tasks.task import PairedTask, PairFigure

IMAGE = Luminance.input_name
LUMINANCE_ERROR = "luminance error, 8-bit"


@final
class ColouringTask(PairedTask):
    """The first stage takes grey; users call `cascade colourise` or `pipeline.colourise`."""

    name = "colourise"
    description = "colourises greyscale images"
    hub_type = "image-to-image"
    hub_title = "Colourisation"
    baseline_name = "greyscale copy"
    hub_tag = "image-colorization"
    example = ('pipeline.colourise(Image.open("image.png")).show()',)

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return contracts[0].condition(Luminance.name) is not None

    def command(self, folder: str) -> str:
        return f"cascade colourise IMAGE --model {folder} -o coloured.png"

    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        def colour(first: Sequence[Stage], image: Tensor, further: Mapping[str, Any]) -> Tensor:
            return colourise_image(first, image, Colouring(seed=seed, inputs=further))

        return then_enlarged(stages, inputs, IMAGE, seed, colour)

    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        grey = inputs.get(IMAGE)
        if tuple(grey.shape[-2:]) != space.size:
            grey = resize(grey, space.size, "bicubic")
        return grey[0].expand(3, -1, -1)

    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        kernel = contracts[0].space.resize_kernel
        return {
            LUMINANCE_ERROR: lambda result, inputs: float(
                luminance_error(result, inputs.get(IMAGE), kernel)
            )
        }


def luminance_error(images: Tensor, grey: Tensor, kernel: ResizeKernel = "bicubic") -> Tensor:
    """Measure how far the luminance of results is from that of their inputs.

    Args:
        images: (B, 3, H, W) in [-1, 1], results; they are resized to the size of the inputs.
        grey: (B, 1, h, w) in [-1, 1], the inputs.
        kernel: kernel of the antialiased resizing.

    Returns:
        (B,) mean absolute error in levels of 255.
    """
    small = resize(images, (grey.shape[-2], grey.shape[-1]), kernel)
    return (luminance(small) - grey).abs().flatten(1).mean(dim=1) * UNITS_8_BIT
