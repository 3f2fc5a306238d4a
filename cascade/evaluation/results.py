"""The result of an evaluation, as values, JSON and text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from cascade.evaluation.calibration import CalibrationCurve
from cascade.evaluation.figures import Measured, Score
from cascade.evaluation.tables import rounded, text_table
from cascade.restoration.expected_error import ExpectedError
from cascade.saving.atomic import atomic_file


@dataclass(frozen=True)
class Sheet:
    """Pictures for the report.

    Attributes:
        heading: heading of the section that shows it; sheets with the same heading share one.
        caption: says what the pictures are.
        image: the pictures side by side.
    """

    heading: str
    caption: str
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """The result of `SetMeasurer` or `PairMeasurer`.

    Attributes:
        measured: the figures of each subject; the last one is the whole pipeline.
        settings: sampling settings of each stage, by its name.
        notes: sentences that a reader of the figures should know.
        sheets: pictures for the report.
        calibration: curves of the standard deviation over seeds; none if it was not measured.
        expected_error: what it says about errors, to be saved in the pipeline; likewise.
    """

    measured: list[Measured]
    settings: Mapping[str, Mapping[str, Any]]
    notes: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    calibration: list[CalibrationCurve] = field(default_factory=list)
    expected_error: ExpectedError | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a pipeline is.

    Attributes:
        pipeline: name of the pipeline.
        task: name of its task, such as `upscale`; see `cascade.tasks`.
        data: path of the held-out pictures.
        train: path of the training pictures; empty if they were not given.
        reading: how the numbers in the files were read, as far as it was stated: `range`, `nodata`
            and `axis`.
        seed: seed of the first image; each further image has the next seed.
        settings: sampling settings of each stage, by its name.
        measured: the figures of each subject; the last one is the whole pipeline.
        notes: sentences that a reader of the figures should know.
        peak_memory_mib: peak memory of the process or the accelerator; None if unknown.
        about: command, hardware and versions.
        calibration: curves of the standard deviation over seeds; none if it was not measured.
        sheets: pictures for the report, which are not part of the JSON.
        expected_error: what the standard deviation over seeds says about errors, to be saved in the
            pipeline; None if it was not measured. It is not part of the JSON.
    """

    pipeline: str
    task: str
    data: str
    train: str
    reading: Mapping[str, Any]
    seed: int
    settings: Mapping[str, Mapping[str, Any]]
    measured: Sequence[Measured]
    notes: Sequence[str]
    peak_memory_mib: float | None
    about: Mapping[str, Any]
    calibration: Sequence[CalibrationCurve] = ()
    sheets: Sequence[Sheet] = field(default=(), compare=False)
    expected_error: ExpectedError | None = field(default=None, compare=False)

    @property
    def whole(self) -> Measured:
        """The figures of the whole pipeline."""
        return self.measured[-1]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, without the sheets and curves for the pipeline."""
        apart = ("sheets", "expected_error")
        values = {name: value for name, value in vars(self).items() if name not in apart}
        return values | {
            "measured": [asdict(each) for each in self.measured],
            "notes": list(self.notes),
            "calibration": [asdict(each) for each in self.calibration],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Convert the values of `to_dict` back."""
        subjects = [
            Measured(**each | {"scores": tuple(Score(**score) for score in each["scores"])})
            for each in values["measured"]
        ]
        curves = [CalibrationCurve(**each) for each in values["calibration"]]
        return cls(**{**values, "measured": subjects, "calibration": curves})

    def save(self, file: Path) -> None:
        """Write the figures as JSON.

        Raises:
            OutputError: if the file cannot be written.
        """
        write_json(self.to_dict(), file)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Lay out a table with a row for each figure and the whole pipeline in the first column.

        Returns:
            The head and the rows.
        """
        columns = [self.whole, *self.measured[:-1]]
        names = dict.fromkeys(score.name for each in columns for score in each.scores)
        rows = [["side, px", *(str(each.size_px) for each in columns)]]
        rows += [_row([_score_named(name, each) for each in columns]) for name in names]
        seconds = [each.seconds_per_image for each in columns]
        rows.append(["seconds per image", *("" if s is None else rounded(s) for s in seconds)])
        return ["", *(each.subject for each in columns)], rows

    def bases(self) -> list[str]:
        """Say what the figures were measured on: a line for each basis."""
        subjects: dict[str, list[str]] = {}
        for each in self.measured:
            figures: dict[str, list[str]] = {}
            for score in each.scores:
                figures.setdefault(score.basis(), []).append(score.name)
            for basis, names in figures.items():
                subjects.setdefault(f"{basis}: {'; '.join(names)}", []).append(each.subject)
        return [f"{' | '.join(names)}: {basis}" for basis, names in subjects.items()]

    def lines(self) -> list[str]:
        """Write the table, the bases of its figures and the notes as lines of text."""
        head, rows = self.table()
        text = text_table(head, rows)
        if self.peak_memory_mib is not None:
            text.append(f"peak memory  {self.peak_memory_mib:,.0f} MiB")
        return [*text, "", *self.bases(), *(f"note: {note}" for note in self.notes)]


def _score_named(name: str, subject: Measured) -> Score | None:
    return next((score for score in subject.scores if score.name == name), None)


def _row(scores: Sequence[Score | None]) -> list[str]:
    """Lay out the row of one figure, with an empty cell where it was not measured."""
    head = next(score.head() for score in scores if score is not None)
    return [head, *("" if score is None else score.text() for score in scores)]


def write_json(values: Mapping[str, Any], file: Path) -> None:
    """Write plain values as JSON, so that an incomplete file never appears.

    Raises:
        OutputError: if the file cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
