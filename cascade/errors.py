"""The errors that a user can cause; the command line prints each as one line, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CascadeError(ValueError):
    """Base of every error that says: what was expected, what came, what to do."""


class RecipeError(CascadeError):
    """A recipe is missing, unreadable, or has a wrong key or value."""


class ContractError(CascadeError):
    """Stages, images or conditions do not fit together."""


class WeightsError(CascadeError):
    """A folder of weights is missing, damaged, pickled or of another model."""


class DataError(CascadeError):
    """Training data or an image file is missing or cannot be read."""


class OutputError(CascadeError):
    """A file or folder cannot be written."""


class OtherProcessError(CascadeError):
    """Another process of the same run failed, and says why."""


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Say which known names come nearest to a wrong one, ready to end an error message.

    Args:
        name: what was given.
        known: what would have been right.
        most: how many names to offer.

    Returns:
        For example `did you mean 'cat-face'?`, or the list of known names where none is near.
    """
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=most, cutoff=0.5)
    if matches:
        return f"did you mean {' or '.join(repr(match) for match in matches)}?"
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"known: {shown or 'none'}"
