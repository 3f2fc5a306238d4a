"""Adds to messages from the floors below the options that allow what they refuse."""

from __future__ import annotations

from pathlib import Path

MORE = ", …"  # after the first of many names
MISSING_END = "not a readable image (its end is missing"
NO_FILE = ": no such file or folder."


def with_overwrite(message: str) -> str:
    """Name the option where an error says that overwriting may be allowed."""
    return message.replace("allow overwriting", "allow overwriting (--overwrite)")


def with_listing(message: str) -> str:
    """Name the command that lists the classes where an error names some of them."""
    is_cut = message.startswith("unknown class ") and message.endswith(MORE)
    return f"{message}; cascade show PIPELINE lists all" if is_cut else message


def with_prompt(message: str) -> str:
    """Name the option for a prompt where an input that does not exist may be meant as one."""
    text = message.removesuffix(NO_FILE)
    if text == message or "://" in text or (" " not in text and Path(text).suffix):
        return message
    return f"{message.removesuffix('.')}; if it is a prompt, write --prompt before it."


def with_options(failure: str) -> str:
    """Name the options that would let a picture be worked on."""
    hint = f"{MISSING_END}; --truncated keep reads it as far as it goes"
    return with_overwrite(failure).replace(MISSING_END, hint)
