"""The scripts of letters, such as Latin or Cyrillic, by their Unicode names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def is_mostly_foreign(text: str, scripts: Sequence[str]) -> bool:
    """Whether most letters of a text belong to none of some scripts.

    Args:
        text: any text; what is no letter, such as digits and emoji, does not count.
        scripts: first words of the Unicode names of letters, in any case, such as `Latin`.
    """
    letters = [char for char in unicodedata.normalize("NFKC", text) if char.isalpha()]
    names = (unicodedata.name(char, "").split(" ")[0] for char in letters)
    own = {script.upper() for script in scripts}
    return 2 * sum(name not in own for name in names) > len(letters)
