"""Counts remarks about training images, and says each kind of them a few times only."""

from __future__ import annotations

from collections.abc import Iterable

from cascade.conditioning.batch import Remark

NAMED = 5  # of each kind, before they are only counted


class RemarkLog:
    """Collects remarks, and turns the first of each kind into lines.

    Args:
        command: the command that lists everything about the images.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._texts: dict[str, dict[str, None]] = {}  # by kind, in order
        self._totals: dict[str, int] = {}  # by kind, as last returned

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
        """One line with the number of images for each kind that has grown since the last call."""
        counts = {kind: len(texts) for kind, texts in self._texts.items()}
        grown = {kind: n for kind, n in counts.items() if n != self._totals.get(kind)}
        self._totals = counts
        return [
            f"images {kind}: {count}; {self._command} lists them." for kind, count in grown.items()
        ]
