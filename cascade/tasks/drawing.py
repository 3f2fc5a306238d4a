"""Drawing: pipelines that make pictures from noise and a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from cascade.conditioning.text import Text
from cascade.contract import Contract
from cascade.saving.model_card import Usage
from cascade.tasks.task import Task

PROMPT = "a cat"  # of the examples


@final
class DrawingTask(Task):
    """The first stage starts from noise, and some stage takes text; users give prompts."""

    name = "draw"
    description = "generates images from text"
    hub_type = "text-to-image"
    hub_title = "Text to image"

    def suits(self, contracts: Sequence[Contract]) -> bool:
        return not contracts[0].needs_image and take_prompts(contracts)

    def command(self, folder: str) -> str:
        return f'cascade generate {folder} "{PROMPT}" -n 4 -o out'

    def usage(self, folder: str) -> Usage:
        return Usage(
            tags=(self.hub_type, "image-generation"),
            command=self.command(folder),
            python=(
                "from cascade import CascadePipeline",
                "",
                f'pipeline = CascadePipeline.from_pretrained("{folder}")',
                f'pipeline("{PROMPT}", num_images=4, seed=0).images[0].show()',
            ),
        )


def take_prompts(contracts: Sequence[Contract]) -> bool:
    """Whether a stage of a chain takes text."""
    return any(Text.input_name in each.input_names for each in contracts)
