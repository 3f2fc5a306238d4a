"""The result of a sweep, as values, JSON and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cascade.evaluation.results import write_json
from cascade.evaluation.tables import rounded, text_table
from cascade.sweeping.candidates import value_text
from cascade.sweeping.outcomes import Outcome, Preference, find_score, is_called, margin_of
from cascade.sweeping.rounds import Round

SECONDS = "seconds per image"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All candidates of a sweep, best first.

    Attributes:
        pipeline: name of the pipeline.
        data: path of the held-out pictures.
        reading: how the numbers in the files were read, see `Evaluation`.
        seed: seed of the first picture; each further picture has the next seed.
        by: name of the figure that decides, such as `KID`.
        prefer: `quality` if the best candidate is the one with the best figure; `speed` if it is
            the fastest of those that are as good within the tolerance.
        tolerance: share of the best figure by which that of the best candidate may be worse; None
            for half of its interval, which also counts if the interval holds zero.
        rounds: number of candidates and of their images in each round.
        outcomes: figures of the candidates, best first; those that left in an early round come
            after those that stayed.
        current: place of the pipeline's current settings in `outcomes`.
        best: place of the best candidate in `outcomes`.
        notes: sentences that a reader of the figures should know.
        about: command, hardware and versions.
    """

    pipeline: str
    data: str
    reading: Mapping[str, Any]
    seed: int
    by: str
    prefer: Preference
    tolerance: float | None
    rounds: Sequence[Round]
    outcomes: Sequence[Outcome]
    current: int
    best: int
    notes: Sequence[str]
    about: Mapping[str, Any]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Lay out a table: its head, and a row for each candidate, best first."""
        axes = list(self.outcomes[0].candidate.values)
        heads = [score.head() for score in self.outcomes[0].scores]
        rows = [self._row(place, axes) for place in range(len(self.outcomes))]
        return ["", *axes, "n", *heads, SECONDS], rows

    def _row(self, place: int, axes: Sequence[str]) -> list[str]:
        outcome = self.outcomes[place]
        values = [value_text(outcome.candidate.values[axis]) for axis in axes]
        figures = [
            score.text() if is_called(score.name, self.by) else rounded(score.value)
            for score in outcome.scores
        ]
        count, seconds = str(outcome.scores[0].n), rounded(outcome.seconds_per_image)
        return [self.mark(place), *values, count, *figures, seconds]

    def mark(self, place: int) -> str:
        """`best`, `current`, both, or nothing."""
        marks = {"best": self.best, "current": self.current}
        return ", ".join(word for word, marked in marks.items() if marked == place)

    def title(self, place: int) -> str:
        """The settings of a candidate in a few words, with its mark."""
        text = self.outcomes[place].candidate.text()
        return f"{self.mark(place)}: {text}" if self.mark(place) else text

    def lines(self) -> list[str]:
        """The table as text, the best settings, and the notes."""
        head, rows = self.table()
        tried = f"tried: {self.tried()}"
        best = f"best by {self.by}{self._reason()}: {self.outcomes[self.best].candidate.text()}"
        return [*text_table(head, rows), "", tried, best, *(f"note: {each}" for each in self.notes)]

    def tried(self) -> str:
        """The number of settings and of their images, round by round."""
        rounds = (f"{each.candidates} settings on {each.images} images" for each in self.rounds)
        return ", then ".join(rounds)

    def _reason(self) -> str:
        return "" if self.prefer == "quality" else f" and {self.chosen_for()}"

    def chosen_for(self) -> str:
        """The preference, with the margin that was used: `speed within 5 %`."""
        if self.prefer == "quality":
            return self.prefer
        _, margin = margin_of(find_score(self.outcomes[0].scores, self.by), self.tolerance)
        return f"{self.prefer} within {margin}"

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON, without the pictures."""
        return {
            **vars(self),
            "rounds": [asdict(each) for each in self.rounds],
            "outcomes": [each.to_dict() for each in self.outcomes],
            "reading": dict(self.reading),
            "notes": list(self.notes),
            "about": dict(self.about),
        }

    def save(self, file: Path) -> None:
        """Write the figures as JSON.

        Raises:
            OutputError: if the file cannot be written.
        """
        write_json(self.to_dict(), file)
