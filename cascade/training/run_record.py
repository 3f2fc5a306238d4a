"""Reads back what a run wrote into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.errors import DataError
from cascade.recipe.reading import load_stage_recipe
from cascade.recipe.sections import StageRecipe
from cascade.training.provenance import read_about
from cascade.training.run_folder import RunLog
from cascade.training.validation_figures import TRAINING_LOSS, VALIDATION


@dataclass(frozen=True)
class RunRecord:
    """The contents of a run's folder.

    Attributes:
        folder: folder of the run.
        recipe: the resolved recipe; None if the run was made without one.
        about: stage, data and parts of the run, as `provenance` wrote them; may be empty.
        steps: log lines with the values of steps.
        meters: log lines with meters.
        validation: log lines with the figures of the held-out images, those of the last set alone.
        grids: sample grids, by the number of images seen.
    """

    folder: Path
    recipe: StageRecipe | None
    about: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    meters: Sequence[Mapping[str, Any]]
    grids: Mapping[int, Path]
    validation: Sequence[Mapping[str, Any]] = ()

    @property
    def images_seen(self) -> int:
        """Number of images seen at the last line of the log."""
        return int(max((line["images"] for line in (*self.steps, *self.meters)), default=0))

    @property
    def seconds(self) -> float:
        """Training time of all parts, at the last line of the log."""
        return max((line.get("seconds", 0.0) for line in (*self.steps, *self.meters)), default=0.0)


def read_run(folder: Path) -> RunRecord:
    """Read what a run wrote; damaged parts are left out.

    Raises:
        DataError: if there is no run in the folder.
    """
    log = RunLog(folder / "log.jsonl")
    about = read_about(folder)
    if not about and not log.file.is_file():
        raise DataError(f"no run in {folder}; give a folder that cascade train wrote.")
    lines = log.read()
    validation = [line for line in lines if line.get("kind") == VALIDATION]
    newest = validation[-1].get(VALIDATION) if validation else None
    recipe = folder / "recipe.yaml"
    return RunRecord(
        folder=folder,
        recipe=load_stage_recipe(recipe) if recipe.is_file() else None,
        about=about,
        steps=[line for line in lines if "kind" not in line],
        meters=[line for line in lines if line.get("kind") == "meters"],
        grids={
            int(path.stem): path
            for path in sorted((folder / "samples").glob("*.png"))
            if path.stem.isdecimal()
        },
        validation=[line for line in validation if _is_whole(line, newest)],
    )


def _is_whole(line: Mapping[str, Any], digest: Any) -> bool:
    """Whether a line has the losses of a certain set of images; someone may have edited it."""
    numbers = (line.get("loss"), line.get(TRAINING_LOSS))
    return line.get(VALIDATION) == digest and all(isinstance(n, int | float) for n in numbers)
