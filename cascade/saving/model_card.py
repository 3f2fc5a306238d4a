"""Writes the model card of a saved pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cascade.sampling.samplers.table import default_options
from cascade.sampling.settings import SamplingSettings

TAGS = ("cascade-diffusion",)


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """The facts about a stage in a model card.

    Attributes:
        starts_from: the image that it takes, such as `64 px`, or `noise`.
        gives: size of its images, such as `256 px`.
        network: kind of the network, such as `unet`.
        parameters: number of parameters.
        predicts: quantity that the network predicts, such as `v`.
        sampling: its sampling settings; None for a stage that samples in no steps.
        facts: further lines by heading, such as the names of its classes.
    """

    starts_from: str
    gives: str
    network: str
    parameters: int
    predicts: str
    sampling: SamplingSettings | None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The examples in a model card.

    Attributes:
        tags: tags for the search on the Hugging Face Hub.
        command: an example command.
        python: the lines of an example in Python.
    """

    tags: tuple[str, ...]
    command: str
    python: tuple[str, ...]


def write_model_card(
    folder: Path,
    stages: Mapping[str, StageSummary],
    usage: Usage | None,
    text: str | None = None,
) -> None:
    """Write `README.md`.

    Args:
        folder: the folder of the pipeline.
        stages: the stages by name.
        usage: examples; None if the task of the pipeline is not known.
        text: the whole card; default: what `describe` writes.
    """
    (folder / "README.md").write_text(text or describe(stages, usage), encoding="utf-8")


def describe(stages: Mapping[str, StageSummary], usage: Usage | None) -> str:
    """Write a model card that describes the stages and shows how to use the pipeline.

    Args:
        stages: the stages by name.
        usage: examples; None if the task of the pipeline is not known.
    """
    rows = [
        "| stage | takes | gives | network | parameters | prediction | sampling |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, stage) for name, stage in stages.items()),
    ]
    facts = {name: text for stage in stages.values() for name, text in stage.facts.items()}
    names = [f"**{name}**: {text}." for name, text in facts.items()]
    title = f"# A cascade of {len(stages)} stage{'s' if len(stages) > 1 else ''}"
    lines = [*_head(usage), title, "", *rows, "", *names, "", *_examples(usage)]
    return "\n".join(lines)


def _head(usage: Usage | None) -> list[str]:
    """Write the front matter, which the Hub reads."""
    tags = [*TAGS, *(usage.tags if usage else ())]
    return ["---", "library_name: diffusers", "tags:", *(f"- {tag}" for tag in tags), "---"]


def _examples(usage: Usage | None) -> list[str]:
    if usage is None:
        return []
    return ["```sh", usage.command, "```", "", "```python", *usage.python, "```", ""]


def _row(name: str, stage: StageSummary) -> str:
    return (
        f"| {name} | {stage.starts_from} | {stage.gives} | {stage.network} "
        f"| {stage.parameters / 1e6:.2f} M | {stage.predicts} {_sampling_cell(stage.sampling)}"
    )


def _sampling_cell(sampling: SamplingSettings | None) -> str:
    if sampling is None:
        return "| none |"
    usual = default_options(sampling.sampler)
    options = "".join(f", {k} {v}" for k, v in sampling.options.items() if v != usual[k])
    return f"| {sampling.sampler}, {sampling.steps} steps, guidance {sampling.guidance}{options} |"


def with_sampling(
    text: str, before: Mapping[str, SamplingSettings], after: Mapping[str, SamplingSettings]
) -> str:
    """Update the sampling settings in a card's table of stages; cards without it do not change.

    Args:
        text: the card.
        before: by stage, the settings that the card shows.
        after: by stage, the settings to show.
    """
    lines = text.split("\n")
    for place, line in enumerate(lines):
        name = line.removeprefix("| ").partition(" |")[0]
        old = _sampling_cell(before[name]) if name in before else ""
        if old and line.endswith(old):
            lines[place] = line.removesuffix(old) + _sampling_cell(after[name])
    return "\n".join(lines)
