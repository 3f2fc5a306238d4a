"""Editing: pipelines that fill holes in pictures of any size.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor

from cascade.conditioning.filling import filled
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.mask import Mask
from cascade.contract import Contract
from cascade.resizing import resize
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.sampling.tiles import Tiles
from cascade.saving.model_card import Usage
from cascade.space import Space
from cascade.stage import Run, Stage
from cascade.tasks.task import PairedTask, PairFigure

IMAGE = Mask.input_name


@final
class EditingTask(PairedTask):
    """The first stage takes pictures with holes; users call `cascade edit` or `pipeline.edit`."""

    name = "edit"
    description = "fills holes in pictures"
    hub_type = "image-to-image"
    hub_title = "Inpainting"
    baseline_name = "smooth fill"

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return contracts[0].fills

    def command(self, folder: str) -> str:
        return f"cascade edit PICTURE --mask MASK --model {folder} -o edited.png"

    def usage(self, folder: str) -> Usage:
        return Usage(
            tags=("image-inpainting", self.hub_type),
            command=self.command(folder),
            python=(
                "from PIL import Image",
                "",
                "from cascade import CascadePipeline",
                "",
                f'pipeline = CascadePipeline.from_pretrained("{folder}")',
                'picture, mask = Image.open("picture.png"), Image.open("mask.png")',
                "pipeline.edit(picture, mask).images[0].show()",
            ),
        )

    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        first, upsamplers = stages[0], stages[1:]
        tile_px = first.default_tile_px(first.contract.result_size(inputs))
        run = Run(tiles=Tiles(tile_px), stream=self.name, precision="auto")
        image = first.run([seed], inputs.only(first.contract.input_names), run=run)[0].cpu()
        if not upsamplers:
            return image
        names = [name for stage in upsamplers for name in stage.contract.input_names]
        further = inputs.with_value(IMAGE, None).only(names)
        return upscale_image(upsamplers, image, Upscaling(seed=seed, inputs=further.values))

    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        image = inputs.get(IMAGE)  # (1, C + 1, H, W)
        smooth = filled(image[:, :-1], image[:, -1:] > 0)
        return resize(smooth, space.size, "bicubic")[0]

    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        return {}
