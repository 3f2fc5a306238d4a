"""Restoring: a stage that was trained on pairs makes one image of a pair from the other.

Shapes: B images, C channels, C' channels of the input, H and W pixels of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.paired_image import PairedImage
from cascade.contract import Contract
from cascade.resizing import resize
from cascade.restoration.restoring import Restoration, restore_image
from cascade.space import Space
from cascade.stage import Stage
from cascade.tasks.following import then_enlarged
from cascade.tasks.task import PairedTask, PairFigure

IMAGE = PairedImage.input_name


@final
class RestoringTask(PairedTask):
    """The first stage takes the first image of a pair; users call `cascade restore`."""

    name = "restore"
    description = "makes one image of a pair from the other"
    hub_type = "image-to-image"
    hub_title = "Image restoration"
    baseline_name = "input"
    hub_tag = "image-restoration"
    example = ('pipeline.restore(Image.open("image.png")).show()',)

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return contracts[0].condition(PairedImage.name) is not None

    def command(self, folder: str) -> str:
        return f"cascade restore IMAGE --model {folder} -o restored.png"

    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        def restore(first: Sequence[Stage], image: Tensor, further: Mapping[str, Any]) -> Tensor:
            return restore_image(first, image, Restoration(seed=seed, inputs=further))

        return then_enlarged(stages, inputs, IMAGE, seed, restore)

    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        """The input itself, or the mean of its bands if the result has others."""
        image = resize(inputs.get(IMAGE), space.size, "bicubic")[0]
        if len(image) == space.channels:
            return image
        return image.mean(0, keepdim=True).expand(space.channels, -1, -1)

    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        return {}
