"""Writes the settings that a sweep found into a pipeline's folder: its recipe, stages and card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

from cascade.building.stages import apply_sampling
from cascade.errors import CascadeError, OutputError, WeightsError
from cascade.recipe.reading import load_pipeline_recipe
from cascade.sampling.settings import SamplingSettings
from cascade.saving.atomic import atomic_file
from cascade.saving.components import read_json
from cascade.saving.model_card import with_sampling
from cascade.saving.pipelines import changeable_folder, has_weights
from cascade.saving.stage_folder import threshold_config

Settings = Mapping[str, SamplingSettings]
DOCUMENT_START = re.compile(r"(?:[^\S\n]*(?:#[^\n]*)?\n)*---[^\S\n]*\n")


def check_applicable(name: str) -> Path:
    """The folder of a pipeline whose settings can be changed, before work that takes long.

    Args:
        name: of a bundled pipeline, or a saved one's folder.

    Raises:
        CascadeError: if it is on the Hub only or cannot be changed, or a package is missing.
    """
    _yaml()
    folder = changeable_folder(name)
    recipe = folder / "pipeline.yaml"
    if recipe.is_file() and has_weights(folder):
        named = [section.name for section in load_pipeline_recipe(recipe).stages]
        there = read_json(folder / "stages" / "chain.json").get("stages")
        if named != there:
            raise OutputError(
                f"{recipe}: its stages {named} are not those of the pipeline, {there}; mend or "
                "remove it."
            )
        _read_recipe(recipe)
    return folder


def apply_settings(folder: Path, settings: Settings) -> list[Path]:
    """Make settings those that a saved pipeline samples with unless told otherwise.

    Args:
        folder: of the pipeline.
        settings: of every stage.

    Returns:
        The files that were changed.

    Raises:
        RecipeError: if the recipe is damaged.
        WeightsError: if a stage is missing or damaged.
        OutputError: if a file cannot be written.
    """
    before = {name: _settings_of(folder / "stages" / name) for name in settings}
    changed = {
        name: {k: v for k, v in asdict(wanted).items() if getattr(before[name], k) != v}
        for name, wanted in settings.items()
    }
    written = []
    recipe, card = folder / "pipeline.yaml", folder / "README.md"
    # The stages last: as long as they differ from the settings, the same call again goes on.
    if recipe.is_file():
        written += _change_recipe(recipe, changed, settings)
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="surrogateescape")
        if (new := with_sampling(text, before, settings)) != text:
            written.append(_write(card, new))
    for name, wanted in settings.items():
        if changed[name]:
            written += _change_stage(folder / "stages" / name, wanted)
    return written


def _settings_of(stage: Path) -> SamplingSettings:
    try:
        return SamplingSettings(**read_json(stage / "stage.json")["sampling"])
    except (LookupError, TypeError) as error:
        raise WeightsError(f"{stage / 'stage.json'} does not describe a stage: {error}.") from error


def _change_stage(stage: Path, wanted: SamplingSettings) -> list[Path]:
    written = []
    for file, new in (
        (stage / "scheduler" / "scheduler_config.json", threshold_config(wanted)),
        (stage / "stage.json", {"sampling": asdict(wanted)}),
    ):
        values = read_json(file)
        if values | new != values:
            written.append(_write(file, json.dumps(values | new, indent=2) + "\n"))
    return written


def _change_recipe(
    file: Path, changed: Mapping[str, Mapping[str, Any]], settings: Settings
) -> list[Path]:
    """Put values into a recipe, whose comments, order and long lines stay."""
    start, recipe = _read_recipe(file)
    sections = {section["name"]: section for section in recipe["stages"]}
    is_changed = False
    for section in load_pipeline_recipe(file).stages:
        name, given = section.name, section.sampling.model_dump(exclude_none=True)
        wanted = asdict(settings[name])
        new = {key: wanted[key] for key, value in given.items() if value != wanted[key]}
        new |= changed[name]
        if any(given.get(key) != value for key, value in new.items()):
            sections[name].setdefault("sampling", {}).update(new)
            is_changed = True
    if not is_changed:
        return []
    text = StringIO()
    _yaml().dump(recipe, text)
    with atomic_file(file) as temporary:
        temporary.write_text(start + text.getvalue(), encoding="utf-8")
        for section in load_pipeline_recipe(temporary).stages:
            if apply_sampling(settings[section.name], section.sampling) != settings[section.name]:
                raise OutputError(
                    f"{file}: stage {section.name!r} shares its settings with another one, so that "
                    "they cannot be changed; write them out for each."
                )
    return [file]


def _read_recipe(file: Path) -> tuple[str, Any]:
    """What stands before the document, and the document with its comments."""
    from ruamel.yaml.error import YAMLError

    yaml = _yaml()
    try:
        text = file.read_text(encoding="utf-8")
        found = DOCUMENT_START.match(text)
        start = found.group() if found else ""
        return start, yaml.load(text.removeprefix(start))
    except (OSError, ValueError, YAMLError) as error:
        raise OutputError(f"{file}: cannot be changed ({error}).") from error


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
    yaml.width = 10_000  # long lines stay long
    yaml.preserve_quotes = True
    return yaml


def _write(file: Path, text: str) -> Path:
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    return file
