"""The model card that goes with a saved pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade.sampling.settings import SamplingSettings

HEAD = """---
library_name: diffusers
tags:
- cascade-diffusion
- unconditional-image-generation
- image-generation
---
"""


def write_model_card(folder: Path, stages: Mapping[str, Any], text: str | None = None) -> None:
    """Write `README.md`: the given text, or a card that describes the stages."""
    (folder / "README.md").write_text(text or describe(stages), encoding="utf-8")


def describe(stages: Mapping[str, Any]) -> str:
    """A model card that says what can be read off the stages, and how to load them."""
    rows = [
        "| stage | takes | gives | network | parameters | prediction | sampling |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, stage) for name, stage in stages.items()),
    ]
    classes = next((stage.labels for stage in stages.values() if stage.labels is not None), None)
    names = [
        f"**{field}**: {', '.join(values)}."
        for field, values in (classes.fields.items() if classes is not None else ())
    ]
    usage = [
        "```python",
        "from cascade import CascadePipeline",
        "",
        'pipeline = CascadePipeline.from_pretrained("this/folder")',
        "pipeline(num_images=4, seed=0).images[0].show()",
        "```",
    ]
    title = f"# A cascade of {len(stages)} stage{'s' if len(stages) > 1 else ''}"
    return HEAD + "\n".join([title, "", *rows, "", *names, "", *usage, ""])


def _row(name: str, stage: Any) -> str:
    contract = stage.contract
    parameters = sum(parameter.numel() for parameter in stage.parameters())
    return (
        f"| {name} | {contract.taken} | {contract.size_px} px | {stage.network.component} "
        f"| {parameters / 1e6:.2f} M | {stage.process.prediction} "
        f"{_sampling_cell(stage.sampling)}"
    )


def _sampling_cell(sampling: SamplingSettings) -> str:
    return f"| {sampling.sampler}, {sampling.steps} steps, guidance {sampling.guidance} |"


def with_sampling(
    text: str, before: Mapping[str, SamplingSettings], after: Mapping[str, SamplingSettings]
) -> str:
    """A card whose table of stages says how they sample now; other cards stay as they are.

    Args:
        text: of the card.
        before: settings of each stage when it was written.
        after: those of now.
    """
    lines = text.split("\n")
    for place, line in enumerate(lines):
        name = line.removeprefix("| ").partition(" |")[0]
        old = _sampling_cell(before[name]) if name in before else ""
        if old and line.endswith(old):
            lines[place] = line.removesuffix(old) + _sampling_cell(after[name])
    return "\n".join(lines)
