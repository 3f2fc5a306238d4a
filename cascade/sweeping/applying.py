"""Writes the settings that a sweep found into a pipeline's folder: its stages and its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cascade.build import saved_folder
from cascade.errors import CascadeError, OutputError
from cascade.files import atomic_file
from cascade.sampling_settings import SamplingSettings
from cascade.weights import read_json


def check_applicable(name: str) -> Path:
    """The folder of a pipeline whose settings can be changed, before work that takes long.

    Args:
        name: of a bundled pipeline, or a saved one's folder.

    Raises:
        CascadeError: if it is on the Hub only or cannot be changed, or a package is missing.
    """
    _yaml()
    return saved_folder(name)


def apply_settings(folder: Path, settings: Mapping[str, SamplingSettings]) -> list[Path]:
    """Make settings those that a saved pipeline samples with unless told otherwise.

    Args:
        folder: of the pipeline.
        settings: of every stage.

    Returns:
        The files that were changed.

    Raises:
        WeightsError: if a stage is missing or damaged.
        OutputError: if a file cannot be written.
    """
    changed: dict[str, dict[str, Any]] = {}
    written = []
    for name, wanted in settings.items():
        file = folder / "stages" / name / "stage.json"
        values = read_json(file)
        new = asdict(wanted)
        changed[name] = {k: v for k, v in new.items() if values["sampling"].get(k) != v}
        if changed[name]:
            _write(file, json.dumps(values | {"sampling": new}, indent=2) + "\n")
            written.append(file)
    recipe = folder / "pipeline.yaml"
    if recipe.is_file() and _change_recipe(recipe, changed):
        written.append(recipe)
    return written


def _change_recipe(file: Path, changed: Mapping[str, Mapping[str, Any]]) -> bool:
    """Put values into a recipe, whose comments and order stay; whether there were any."""
    yaml = _yaml()
    try:
        recipe = yaml.load(file.read_text(encoding="utf-8"))
        sections = {section["name"]: section for section in recipe["stages"]}
        for name, values in changed.items():
            if values:
                sections[name].setdefault("sampling", {}).update(values)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OutputError(f"{file}: cannot be changed ({error}).") from error
    if not any(changed.values()):
        return False
    with atomic_file(file) as temporary:
        yaml.dump(recipe, temporary)
    return True


def _yaml() -> Any:
    """Reads and writes YAML with its comments.

    Raises:
        CascadeError: if ruamel.yaml is not installed.
    """
    try:
        from ruamel.yaml import YAML
    except ImportError as error:
        raise CascadeError(
            f"ruamel.yaml cannot be imported ({error}); install it with: "
            'pip install "cascade-diffusion[evaluate]"'
        ) from error
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 100
    yaml.preserve_quotes = True
    return yaml


def _write(file: Path, text: str) -> None:
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
