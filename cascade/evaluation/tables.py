"""Figures in tables: how they are rounded, and how rows become lines of text."""

from __future__ import annotations

from collections.abc import Sequence


def rounded(value: float) -> str:
    """Round a number to four figures, without an exponent: 0.0132, 12.41, 5310."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:#.4g}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table as lines of text, with the first column aligned left and the others right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
