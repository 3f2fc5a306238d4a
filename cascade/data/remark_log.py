"""Counts remarks about training images, and says each kind of them a few times only."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.conditioning.batch import Remark
from cascade.data.broken import listed_by

NAMED = 5  # of each kind, before they are only counted


class RemarkLog:
    """Collects remarks, and turns the first of each kind into lines.

    Args:
        command: the command that lists everything about the images; empty for none.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._texts: dict[str, dict[str, None]] = {}  # by kind, in order
        self._counts: dict[str, int] = {}  # that `totals` returned last

    def add(self, remarks: Iterable[Remark]) -> list[str]:
        """Record remarks; the same one counts once.

        Returns:
            The lines to show now.
        """
        lines = []
        for kind, text in remarks:
            texts = self._texts.setdefault(kind, {})
            if text not in texts:
                texts[text] = None
                lines += [f"image {kind}: {text}"] if len(texts) <= NAMED else []
                if len(texts) == NAMED + 1:
                    lines.append(f"further images {kind}, are only counted.")
        return lines

    def totals(self) -> list[str]:
        """One line per kind with the number of its images, if there are more than before."""
        counts = {kind: len(texts) for kind, texts in self._texts.items()}
        lines = [
            f"images {kind}: {count}.{listed_by(self._command)}"
            for kind, count in counts.items()
            if count != self._counts.get(kind)
        ]
        self._counts = counts
        return lines
