"""Names the key and the file of a recipe in errors that come from deeper floors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.errors import CascadeError, ContractError, RecipeError


class RecipeValueError(RecipeError):
    """The value of a key does not fit; the message begins with the key, but names no file."""


@contextmanager
def fault_in(
    place: str,
    keys: tuple[str, ...] = (),
    *,
    errors: tuple[type[CascadeError], ...] = (ContractError, RecipeError),
) -> Iterator[None]:
    """Name the key in errors that the block raises.

    Args:
        place: a key, or a section of keys, such as `sampling`.
        keys: keys of the section; the first one that a message mentions is named.
        errors: the kinds of errors that a value of the recipe causes.

    Raises:
        RecipeValueError: in place of these errors.
    """
    try:
        yield
    except RecipeValueError:
        raise
    except errors as error:
        words = re.findall(r"\w+", str(error))
        key = next((f"{place}.{word}" for word in words if word in keys), place)
        raise RecipeValueError(f"key {key!r}: {error}") from error


@contextmanager
def fault_of(file: Path | None) -> Iterator[None]:
    """Name the file in errors about values of a recipe that the block raises.

    Args:
        file: the recipe; None for one that comes from no file.

    Raises:
        RecipeError: in place of `RecipeValueError`.
    """
    try:
        yield
    except RecipeValueError as error:
        if file is None:
            raise
        raise RecipeError(f"{file}: {error}") from error
