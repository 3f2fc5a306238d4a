"""Reads values of settings from texts such as those of a command line.

Lists and mappings are written as in YAML. Scalars are read here: YAML 1.1 takes 010 for octal 8,
1:30 for 90, and 1e-4 for text.
"""

from __future__ import annotations

import re
from typing import Any

WHOLE = re.compile(r"[+-]?[0-9]+")
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def read_value(text: str) -> Any:
    """Read a number, a word, a list or a mapping.

    Returns:
        The value; None if the text is empty, `null`, or not valid YAML.
    """
    from yaml import BaseLoader, YAMLError, load

    try:
        return _typed(load(text, Loader=BaseLoader))  # makes nothing but texts
    except YAMLError:
        return None


def _typed(value: Any) -> Any:
    """Convert the texts in a value to numbers and truth values where they look like ones."""
    if isinstance(value, dict):
        return {key: _typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    if not isinstance(value, str):
        return value
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    if WHOLE.fullmatch(value):
        return int(value)
    try:
        return value if "_" in value else float(value)
    except ValueError:
        return value
