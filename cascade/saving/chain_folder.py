"""The folder of a chain: `chain.json` names its stages in order, each in a folder of its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cascade.contract import Contract
from cascade.errors import WeightsError
from cascade.saving.components import read_json
from cascade.saving.stage_folder import read_contract

CHAIN = "chain.json"


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


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier()
