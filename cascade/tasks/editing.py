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
from cascade.restoration.editing import Editing, prepare_edit
from cascade.restoration.subject import Subject
from cascade.sampling.walk import Hooks
from cascade.space import Space
from cascade.stage import Run, Stage
from cascade.tasks.task import PairedTask, PairFigure

IMAGE = Mask.input_name


@final
class EditingTask(PairedTask):
    """The first stage takes pictures with holes; users call `cascade edit` or `pipeline.edit`."""

    name = "edit"
    description = "inpaints images"
    hub_type = "image-to-image"
    hub_title = "Inpainting"
    baseline_name = "smooth fill"
    hub_tag = "image-inpainting"
    example = (
        'image, mask = Image.open("image.png"), Image.open("mask.png")',
        "pipeline.edit(image, mask).images[0].show()",
    )

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return contracts[0].fills

    def command(self, folder: str) -> str:
        return f"cascade edit IMAGE --mask MASK --model {folder} -o edited.png"

    def run(self, stages: Sequence[Stage], inputs: Inputs, seed: int) -> Tensor:
        picture, hole = inputs.get(IMAGE)[0, :-1].cpu(), inputs.get(IMAGE)[0, -1].cpu() <= 0
        contracts = [stage.contract for stage in stages]
        edit, box = prepare_edit(contracts, picture, hole, Editing())
        result = None
        for number, stage in enumerate(stages):
            own = inputs.with_value(IMAGE, edit.input_image(stage)).only(stage.contract.input_names)
            run = Run(
                tiles=edit.tiles(stage),
                hooks=edit.hooks(stage, 1, Hooks()),
                stream=f"stage part{number}",
                precision="auto",
            )
            start = None if result is None else result.to(stage.device)
            result = stage.run([seed], own, start, run)
        assert result is not None
        return Subject.of(picture, hole).pasted(result, box)[0]

    def baseline(self, inputs: Inputs, space: Space) -> Tensor:
        image = inputs.get(IMAGE)  # (1, C + 1, H, W)
        smooth = filled(image[:, :-1], image[:, -1:] > 0)
        return resize(smooth, space.size, "bicubic")[0]

    def figures(self, contracts: Sequence[Contract]) -> dict[str, PairFigure]:
        return {}
