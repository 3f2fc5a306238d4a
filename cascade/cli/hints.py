"""Adds to messages from the floors below the options that allow what they refuse."""

from __future__ import annotations

MISSING_END = "not a readable image (its end is missing"


def with_overwrite(message: str) -> str:
    """Name the option where an error says that overwriting may be allowed."""
    return message.replace("allow overwriting", "allow overwriting (--overwrite)")


def with_options(failure: str) -> str:
    """Name the options that would let a picture be worked on."""
    hint = f"{MISSING_END}; --truncated keep takes what is there"
    return with_overwrite(failure).replace(MISSING_END, hint)
