"""The folder of a run: its files, its log, and the settings that a resumed run must keep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade.data.band_decoding import BandDecoding
from cascade.data.training_images import TrainingImages
from cascade.errors import CascadeError, OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.saving.atomic import atomic_file, remove_folder
from cascade.saving.differences import differences
from cascade.stage import Stage
from cascade.training.averaging import snapshots
from cascade.training.image_list import FILE as IMAGE_LIST
from cascade.training.image_list import fields_read, keys_digest, labels_digest
from cascade.training.settings import TrainingSettings

MAY_CHANGE = (
    "the number of images, the learning rates with their schedule, warm-up and decay, weight "
    "decay, betas, gradient clipping, the decay of the averaged weights, how steps are computed, "
    "sampling settings, the path of the data, how unusable images are treated, the validation "
    "images, and what is saved, shown and measured how often"
)
RECIPE = "recipe.yaml"
FILES = ("stage", "stage-best", RECIPE, "about.json", IMAGE_LIST, "log.jsonl", "report.html")
LOCK = ".lock"
FOLDERS = ("checkpoints", "averages", "samples", "generated")
SIGNS = ("about.json", LOCK, "checkpoints", "generated")  # of which every run has one early on


def check_run_folder(out: Path, data: str) -> None:
    """Check that a run's folder holds nothing that the run would replace or mix with its own.

    Without a run, it may hold no images, folders or recipe, which may be that to be trained. Other
    files may lie there, such as a log of the command's output.

    Args:
        out: folder of the run; it need not exist.
        data: path of the images.

    Raises:
        OutputError: if it lies among the images, of which sample sheets would become some, or holds
            other things.
    """
    images = Path(data)
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise OutputError(
            f"the run's folder {out} lies among the images in {images}, so that its sample sheets "
            "would become training images; use another folder."
        )
    entries = sorted(out.iterdir()) if out.is_dir() else []
    strangers = [
        path.name
        for path in entries
        if path.is_dir() or path.suffix in IMAGE_SUFFIXES or path.name == RECIPE
    ]
    if strangers and not {path.name for path in entries} & {*SIGNS}:
        raise OutputError(
            f"{out} holds other things, such as {strangers[0]}, and no run; use another folder."
        )


def remove_undone(out: Path, images_seen: int) -> None:
    """Remove snapshots and sample sheets of steps that a kill undid.

    Args:
        out: folder of the run.
        images_seen: position of the checkpoint that the run resumes from; later ones are removed.
    """
    for snapshot in snapshots(out / "averages"):
        if snapshot.images_seen > images_seen:
            remove_folder(snapshot.folder)
    for sheet in (out / "samples").glob("*.png"):
        if sheet.stem.isdecimal() and int(sheet.stem) > images_seen:
            sheet.unlink()


class RunLog:
    """`log.jsonl`: one JSON object per line, each with `images` seen and `seconds` trained.

    Most lines hold the values of the last steps. Lines with `"kind": "meters"` hold the meters,
    those with `"kind": "validation"` the figures of held-out images.

    Args:
        file: path of the log; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, line: Mapping[str, float | str]) -> None:
        """Add a line."""
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All complete lines, in order."""
        return [line for _, line in self._lines() if line is not None]

    def rewind(self, images_seen: int) -> None:
        """Remove the lines that a killed run wrote after the checkpoint it resumes from.

        Args:
            images_seen: position of the checkpoint; later lines are removed.
        """
        lines = self._lines()
        remaining = [text for text, line in lines if line and line["images"] <= images_seen]
        if len(remaining) < len(lines):
            with atomic_file(self.file) as temporary:
                temporary.write_text("".join(remaining), encoding="utf-8")

    def _lines(self) -> list[tuple[str, dict[str, Any] | None]]:
        """The text and the values of each line; None for the values of an incomplete line."""
        if not self.file.is_file():
            return []
        text = self.file.read_text(encoding="utf-8", errors="replace")
        return [(line, _parse(line)) for line in text.splitlines(keepends=True)]


def run_identity(
    settings: TrainingSettings,
    stage: Stage,
    images: TrainingImages,
    objective: Mapping[str, Any],
) -> dict[str, Any]:
    """The values that must stay the same when a run resumes, as nested plain values.

    Args:
        settings: settings of the run.
        stage: the stage that is trained.
        images: the training images.
        objective: what the objective says of itself.
    """
    pool, config = images.generated, stage.config()
    config.pop("sampling", None)
    return {
        "train": {
            "batch_size": settings.batch_size,
            "seed": settings.seed,
            "optimiser": settings.optimiser,
            "objective": settings.objective,
            "snapshots": settings.snapshot_every_images > 0,
        },
        "objective": dict(objective),
        "stage": config,
        "data": {
            "images": len(images.source),
            "keys": keys_digest(images.source),
            "labels": labels_digest(images.source, fields_read(images)),
            "crop_px": images.augmentation.crop_px,
            "flip": list(images.augmentation.flip),
            "rotate90": images.augmentation.rotate90,
            "range": images.decoding.range and list(images.decoding.range),
            **_masking(images),
            "generated_fraction": 0.0 if pool is None else pool.fraction,
            "generated_images": 0 if pool is None else len(pool.indices),
        },
    }


def _masking(images: TrainingImages) -> dict[str, Any]:
    """What decides which values the loss leaves out; nothing for images without missing values."""
    decoding = images.decoding
    if not images.masks_missing or not isinstance(decoding, BandDecoding):
        return {}
    nodata = decoding.nodata
    is_nan = nodata is not None and math.isnan(nodata)  # which is missing anyway, and not itself
    return {"missing": decoding.missing, "nodata": None if is_nan else nodata}


def check_same_run(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run resumes with the settings it began with.

    Args:
        out: folder of the run, for the message.
        before: nested plain values from the checkpoint.
        now: the values of the run that resumes from it, of the same form.

    Raises:
        CascadeError: naming every key that differs, and what may change.
    """
    changes = differences(before, now)
    if changes:
        raise CascadeError(
            f"{out} was trained with {', '.join(map(str, changes))}; set this back, or use another "
            f"folder. Only these may change: {MAY_CHANGE}."
        )


def _parse(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        return values if isinstance(values["images"], (int, float)) else None
    except (ValueError, LookupError, TypeError):
        return None
