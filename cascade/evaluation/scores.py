"""What an evaluation finds: figures that each say of how many images, against what, and by what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from cascade.saving.atomic import atomic_file

Task = Literal["generate", "upscale", "colourise"]
Better = Literal["lower", "higher", "nearer to 0", "nearer to 1", ""]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One figure.

    Attributes:
        name: such as `FD-EffLite0`.
        value: of it.
        n: images that it was measured on.
        reference: what they were compared with, in words; empty for nothing.
        n_reference: how many images that is.
        extractor: whose features were compared; empty for pixels.
        resizing: of the images before they were compared, in words; empty for none.
        low: lower end of the interval of 95 %, where there is one.
        high: upper end.
        better: which way is better.
    """

    name: str
    value: float
    n: int
    reference: str = ""
    n_reference: int = 0
    extractor: str = ""
    resizing: str = ""
    low: float | None = None
    high: float | None = None
    better: Better = ""

    def text(self) -> str:
        """Value and interval, with digits that mean something."""
        if self.low is None or self.high is None:
            return short(self.value)
        return f"{short(self.value)} [{short(self.low)}, {short(self.high)}]"

    def basis(self) -> str:
        """Number of images, reference, extractor and resizing, as one sentence."""
        parts = [f"n = {self.n}"]
        if self.reference:
            parts.append(f"against {self.n_reference} {self.reference}")
        parts += [part for part in (self.extractor, self.resizing) if part]
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of one thing that was measured: a stage alone, the whole chain, a simple rival.

    Attributes:
        subject: what was measured, such as `upsampler, alone`.
        given: what it was given, in words.
        size_px: side of its images.
        seconds_per_image: wall time, all included; None where nothing was made.
        scores: the figures.
    """

    subject: str
    given: str
    size_px: int
    seconds_per_image: float | None
    scores: tuple[Score, ...]

    def score(self, name: str) -> Score | None:
        """The first figure whose name begins so, such as `FD`; None if there is none."""
        return next((each for each in self.scores if each.name.startswith(name)), None)


@dataclass(frozen=True)
class Sheet:
    """Pictures for the report."""

    heading: str
    caption: str
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that was found of a pipeline.

    Attributes:
        pipeline: its name.
        task: what it does.
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
    task: Task
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
        for name in names:
            found = [
                next((score for score in each.scores if score.name == name), None)
                for each in columns
            ]
            better = next(score.better for score in found if score is not None)
            head = f"{name}, {better}" if better else name
            rows.append([head, *("" if score is None else score.text() for score in found)])
        seconds = [each.seconds_per_image for each in columns]
        rows.append(["seconds per image", *("" if s is None else short(s) for s in seconds)])
        return ["", *(each.subject for each in columns)], rows

    def bases(self) -> list[str]:
        """Of what the figures are: a line for each kind of them."""
        subjects: dict[str, list[str]] = {}
        for each in self.measured:
            names: dict[str, list[str]] = {}
            for score in each.scores:
                names.setdefault(score.basis(), []).append(score.name)
            for basis, of in names.items():
                subjects.setdefault(f"{basis}: {'; '.join(of)}", []).append(each.subject)
        return [f"{' | '.join(of)}: {basis}" for basis, of in subjects.items()]

    def lines(self) -> list[str]:
        """The table as text, what its figures are of, and the notes."""
        head, rows = self.table()
        text = text_table(head, rows)
        if self.peak_memory_mib is not None:
            text.append(f"peak memory  {self.peak_memory_mib:,.0f} MiB")
        return [*text, "", *self.bases(), *(f"note: {note}" for note in self.notes)]


def short(value: float) -> str:
    """A number with four figures and no exponent where it can be helped: 0.0132, 12.41, 5310."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:#.4g}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, the first column to the left and the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def write_json(values: Mapping[str, Any], file: Path) -> None:
    """Write plain values, whole or not at all.

    Raises:
        OutputError: if the file cannot be written.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    with atomic_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
