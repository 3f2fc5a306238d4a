"""Makes settings the defaults of a saved pipeline, in its stages and its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cascade.errors import CascadeError, WeightsError
from cascade.sampling.settings import SamplingSettings
from cascade.saving.atomic import atomic_file
from cascade.saving.components import read_json
from cascade.saving.model_card import with_sampling
from cascade.saving.stage_folder import CONFIG, SCHEDULER, stage_in, threshold_config

Settings = Mapping[str, SamplingSettings]


def apply_settings(folder: Path, settings: Settings) -> list[Path]:
    """Make settings the defaults of a saved pipeline.

    Args:
        folder: folder of the pipeline, or of a single stage or its run.
        settings: sampling settings of every stage, by its name.

    Returns:
        The files that changed.

    Raises:
        WeightsError: if a stage is missing or damaged.
        OutputError: if a file cannot be written.
    """
    stages = {name: stage_in(folder) or folder / "stages" / name for name in settings}
    before = {name: _saved_settings(stages[name]) for name in settings}
    changed_files = []
    card = folder / "README.md"
    # The card comes before the stages: while a stage differs, applying again finishes the work.
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="surrogateescape")
        changed_files += _write_if_changed(card, text, with_sampling(text, before, settings))
    for name, each in settings.items():
        if each.to_dict() != before[name].to_dict():
            changed_files += _write_stage(stages[name], each)
    return changed_files


def recipe_sections(settings: Settings) -> str:
    """The `stages:` of a pipeline recipe, with the `sampling:` section of each, as YAML."""
    from yaml import safe_dump

    stages = [{"name": name, "sampling": each.to_dict()} for name, each in settings.items()]
    return safe_dump({"stages": stages}, sort_keys=False)


def _saved_settings(stage: Path) -> SamplingSettings:
    config = read_json(stage / CONFIG)
    try:
        return SamplingSettings().changed(**config["sampling"])
    except (LookupError, TypeError, CascadeError) as error:
        raise WeightsError(f"{stage / CONFIG} does not describe a stage: {error}.") from error


def _write_stage(stage: Path, settings: SamplingSettings) -> list[Path]:
    changed_files = []
    scheduler = stage / SCHEDULER
    for file, values in (
        (scheduler, threshold_config(settings)),
        (stage / CONFIG, {"sampling": settings.to_dict()}),
    ):
        if not file.is_file():  # not every kind of stage has a scheduler
            continue
        before = read_json(file)
        text, new_text = (json.dumps(each, indent=2) + "\n" for each in (before, before | values))
        changed_files += _write_if_changed(file, text, new_text)
    return changed_files


def _write_if_changed(file: Path, before: str, text: str) -> list[Path]:
    if text == before:
        return []
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    return [file]
