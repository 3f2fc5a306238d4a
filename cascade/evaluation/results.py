"""The result of an evaluation, and how it is written as JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.tables import rounded, text_table
from cascade.saving.atomic import atomic_file


@dataclass(frozen=True)
class Sheet:
    """Pictures for the report."""

    heading: str
    caption: str
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a measurer gives.

    Attributes:
        measured: the figures; the last is the whole pipeline.
        settings: how each stage sampled, by name.
        notes: what one must know to read the figures.
        sheets: pictures for the report.
    """

    measured: list[Measured]
    settings: Mapping[str, Mapping[str, Any]]
    notes: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a pipeline is.

    Attributes:
        pipeline: its name.
        task: name of what it is for; see `cascade.tasks`.
        data: where the held-out pictures are.
        train: where the training pictures are; empty if they were not given.
        seed: of the first image; the others count up.
        settings: how each stage sampled, by name.
        measured: the figures; the last is the whole pipeline.
        notes: what one must know to read them.
        peak_memory_mib: most memory of the process, or of the accelerator; None if unknown.
        about: command, hardware and versions.
        sheets: pictures; not part of the JSON.
    """

    pipeline: str
    task: str
    data: str
    train: str
    seed: int
    settings: Mapping[str, Mapping[str, Any]]
    measured: Sequence[Measured]
    notes: Sequence[str]
    peak_memory_mib: float | None
    about: Mapping[str, Any]
    sheets: Sequence[Sheet] = field(default=(), compare=False)

    @property
    def whole(self) -> Measured:
        """The figures of the whole pipeline."""
        return self.measured[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, without the pictures."""
        values = {name: value for name, value in vars(self).items() if name != "sheets"}
        return values | {
            "measured": [asdict(each) for each in self.measured],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Read `to_dict`'s values back."""
        measured = [
            Measured(**each | {"scores": tuple(Score(**score) for score in each["scores"])})
            for each in values["measured"]
        ]
        return cls(**{**values, "measured": measured})

    def save(self, file: Path) -> None:
        """Write the figures as JSON.

        Raises:
            OutputError: if the file cannot be written.
        """
        write_json(self.to_dict(), file)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of a table: a row for each figure, the whole pipeline first."""
        columns = [self.whole, *self.measured[:-1]]
        names = dict.fromkeys(score.name for each in columns for score in each.scores)
        rows = [["side, px", *(str(each.size_px) for each in columns)]]
        rows += [_row([_score_named(name, each) for each in columns]) for name in names]
        seconds = [each.seconds_per_image for each in columns]
        rows.append(["seconds per image", *("" if s is None else rounded(s) for s in seconds)])
        return ["", *(each.subject for each in columns)], rows

    def bases(self) -> list[str]:
        """What the figures were measured on: a line for each basis."""
        subjects: dict[str, list[str]] = {}
        for each in self.measured:
            names: dict[str, list[str]] = {}
            for score in each.scores:
                names.setdefault(score.basis(), []).append(score.name)
            for basis, of in names.items():
                subjects.setdefault(f"{basis}: {'; '.join(of)}", []).append(each.subject)
        return [f"{' | '.join(of)}: {basis}" for basis, of in subjects.items()]

    def lines(self) -> list[str]:
        """The table as text, the bases of its figures, and the notes."""
        head, rows = self.table()
        text = text_table(head, rows)
        if self.peak_memory_mib is not None:
            text.append(f"peak memory  {self.peak_memory_mib:,.0f} MiB")
        return [*text, "", *self.bases(), *(f"note: {note}" for note in self.notes)]


def _score_named(name: str, measured: Measured) -> Score | None:
    return next((score for score in measured.scores if score.name == name), None)


def _row(scores: Sequence[Score | None]) -> list[str]:
    """The row of one figure."""
    head = next(score.head() for score in scores if score is not None)
    return [head, *("" if score is None else score.text() for score in scores)]


def write_json(values: Mapping[str, Any], file: Path) -> None:
    """Write plain values, whole or not at all.

    Raises:
        OutputError: if the file cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
