"""The folder of a chain: `chain.json` names its stages in order, each in a folder of its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascade.contract import Contract
from cascade.errors import WeightsError
from cascade.sampling.settings import SamplingSettings
from cascade.saving.components import read_json
from cascade.saving.pipelines import DOUBT, PIPELINE_ENTRIES, RECIPE, has_weights
from cascade.saving.stage_folder import read_contract, read_sampling, stage_entries

CHAIN = "chain.json"
STAGES = "stages"  # folder of the chain of a pipeline


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Write the names of the stages, first stage first."""
    text = json.dumps({"stages": list(names)}, indent=2) + "\n"
    (folder / CHAIN).write_text(text, encoding="utf-8")


def saved_contracts(folder: Path) -> list[Contract]:
    """Read the contracts of the stages that `StageChain.save_pretrained` wrote, without weights.

    Raises:
        WeightsError: if a file is missing or damaged.
    """
    return [read_contract(folder / name) for name in saved_names(folder)]


def saved_names(folder: Path) -> list[str]:
    """The names of the stages in the folder of a chain, first stage first.

    Raises:
        WeightsError: if `chain.json` is missing or damaged.
    """
    names = read_json(folder / CHAIN).get("stages")
    if not isinstance(names, list) or not all(_is_plain_name(name) for name in names):
        raise WeightsError(f"{folder / CHAIN} must list the names of the stages.")
    if len(set(names)) < len(names):
        raise WeightsError(f"{folder / CHAIN} names a stage twice: {', '.join(names)}.")
    return names


def saved_sampling(folder: Path) -> dict[str, SamplingSettings | None]:
    """Read the sampling settings of the stages of a saved chain, by stage, without weights.

    Returns:
        None for a stage that does not sample in steps.

    Raises:
        WeightsError: if a file is missing or damaged.
    """
    return {name: read_sampling(folder / name) for name in saved_names(folder)}


def chain_entries(folder: Path) -> list[str]:
    """The files of a saved chain, which another may replace; none if the folder holds none."""
    try:
        names = saved_names(folder)
    except WeightsError:
        return []
    stages = [f"{name}/{entry}" for name in names for entry in stage_entries(folder / name)]
    return [CHAIN, DOUBT, *stages]


def pipeline_entries(folder: Path, recipe: str | None) -> list[str]:
    """The files of a saved pipeline, which another may replace.

    Args:
        folder: the folder of the pipeline. If it holds none, nothing but a copy of the recipe may
            be replaced.
        recipe: text of the new pipeline's recipe; None if it has none.
    """
    if has_weights(folder):
        stages = chain_entries(folder / STAGES)
        return [*PIPELINE_ENTRIES, *(f"{STAGES}/{name}" for name in stages)]
    file = folder / RECIPE
    is_copy = recipe is not None and file.is_file() and file.read_bytes() == recipe.encode()
    return [RECIPE] if is_copy else []


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier()
