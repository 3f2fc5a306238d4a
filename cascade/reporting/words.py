"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `1 picture`, `1,200 pictures`."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"
