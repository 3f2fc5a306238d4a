"""Errors that a user can cause; the command line prints each as one line without traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CascadeError(ValueError):
    """Base class; every message says what was expected, what came, and what to do."""


class RecipeError(CascadeError):
    """A recipe, or a noise schedule or process, has a wrong value; or a recipe cannot be read."""


class ContractError(CascadeError):
    """An argument has a wrong value, or stages, images and conditions do not fit together."""


class SettingsError(ContractError):
    """Settings that exclude each other, or that the stages cannot follow, whatever the picture."""


class WeightsError(CascadeError):
    """A folder of weights is missing, damaged, pickled, or belongs to another model."""


class DataError(CascadeError):
    """Training data or an image file is missing or cannot be read."""


class OutputError(CascadeError):
    """A file or folder cannot be written."""


class OtherProcessError(CascadeError):
    """Another process of the same run failed; that process reports why."""


def first_line(error: BaseException) -> str:
    """The first line of another package's error, without full stop; its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


def nearest(
    name: str, names: Iterable[str], *, most: int = 3, likeness: float = 0.5, section: str = ""
) -> str:
    """Suggest names that are close to a wrong one, as the end of an error message.

    Args:
        name: the wrong name.
        names: all valid names.
        most: the largest number of suggestions, at least 1.
        likeness: how close a name must be to be suggested, in [0, 1], as difflib measures it.
        section: written before each suggestion, such as `train.`.

    Returns:
        For example `did you mean 'cat-face'?`, or the list of valid names if none is close.
    """
    names = list(names)
    matches = difflib.get_close_matches(name, names, n=most, cutoff=likeness)
    if matches:
        return f"did you mean {' or '.join(repr(section + match) for match in matches)}?"
    listing = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"known: {listing or 'none'}"
