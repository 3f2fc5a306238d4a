"""Compares names of files that differ only in what people do not see or mean."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def folded(name: str) -> str:
    """A form of a path that ignores upper and lower case, Unicode form and kind of slash."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()


def composed(name: str) -> str:
    """The Unicode form NFC, in which an accented letter is one character.

    macOS may store the same name with the accents as characters of their own (NFD).
    """
    return unicodedata.normalize("NFC", name)


def quoted(name: str) -> str:
    """A name in quotes, on one line."""
    return repr(name).replace("\\\\", "\\")


class NameIndex:
    """Finds names that are meant by other names.

    Args:
        names: paths within a source.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._composed: dict[str, list[str]] = {}
        self._folded: dict[str, str] = {}
        for name in sorted(self._names):
            self._composed.setdefault(composed(name), []).append(name)
            self._folded.setdefault(folded(name), name)

    def same(self, name: str) -> str | None:
        """The one name that consists of the same characters, whatever their Unicode form."""
        if name in self._names:
            return name
        names = self._composed.get(composed(name), [])
        return names[0] if len(names) == 1 else None

    def alike(self, name: str) -> str | None:
        """A name that differs only in case, Unicode form or the kind of slash."""
        return self._folded.get(folded(name))
