"""The stage of a run at its lowest validation loss, in `stage-best` beside `stage`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cascade.errors import WeightsError
from cascade.saving.atomic import atomic_folder
from cascade.saving.components import read_json
from cascade.saving.stage_folder import stage_entries
from cascade.stage import Stage

FOLDER = "stage-best"
RECORD = "best.json"


@dataclass(frozen=True)
class BestStage:
    """What is known about the stage with the lowest validation loss so far.

    Attributes:
        images: number of images that it had seen.
        loss: its validation loss.
        validation: digest of the images that it was measured on.
    """

    images: int
    loss: float
    validation: str


def write_best(out: Path, stage: Stage, best: BestStage) -> None:
    """Write a stage and its measurement into the folder of a run, in place of an earlier one.

    Raises:
        OutputError: if it cannot be written; the earlier one stays.
    """
    folder = out / FOLDER
    with atomic_folder(folder, owned=[*stage_entries(folder), RECORD]) as temporary:
        stage.write(temporary)
        text = json.dumps(asdict(best), indent=2) + "\n"
        (temporary / RECORD).write_text(text, encoding="utf-8")


def read_best(out: Path) -> BestStage | None:
    """What is known about the best stage of a run; None if there is none, or it is damaged."""
    try:
        values = read_json(out / FOLDER / RECORD)
        return BestStage(int(values["images"]), float(values["loss"]), str(values["validation"]))
    except (WeightsError, LookupError, TypeError, ValueError):
        return None
