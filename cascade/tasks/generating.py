"""Generating: pipelines that make pictures from noise, without a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from cascade.contract import Contract
from cascade.saving.model_card import Usage
from cascade.tasks.drawing import take_prompts
from cascade.tasks.task import Task


@final
class GeneratingTask(Task):
    """The first stage starts from noise alone, and no stage takes text; users call the pipeline."""

    name = "generate"
    description = "generates images from noise"
    hub_type = "unconditional-image-generation"
    hub_title = "Image generation"

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return not contracts[0].needs_image and not take_prompts(contracts)

    def command(self, folder: str) -> str:
        return f"cascade generate {folder} -n 4 -o out"

    def usage(self, folder: str) -> Usage:
        return Usage(
            tags=(self.hub_type, "image-generation"),
            command=self.command(folder),
            python=(
                "from cascade import CascadePipeline",
                "",
                f'pipeline = CascadePipeline.from_pretrained("{folder}")',
                "pipeline(num_images=4, seed=0).images[0].show()",
            ),
        )
