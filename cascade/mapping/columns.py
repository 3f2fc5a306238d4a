"""Batches as dictionaries of columns: where pictures and their names are, and what goes back.

The names of columns are those that engines give: `bytes` and `path` (Ray Data's
`read_binary_files`), `content` and `path` (Spark's `binaryFile`), `image` (Ray Data's
`read_images`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from cascade.arguments import shown
from cascade.data.remote import is_remote, without_secrets
from cascade.errors import ContractError, DataError

PICTURES = ("bytes", "content", "image")
RESULTS = "bytes"  # column of the results where files are read by their paths
MOST_CHANNELS = 4
TEXTS = (str, bytes, bytearray, memoryview, Mapping)  # whose parts are no values of rows
NAME, PATH, ERROR = "name", "path", "error"


@dataclass(frozen=True)
class Columns:
    """The columns of a batch.

    Attributes:
        values: all columns by name, as lists of one length.
        pictures: name of the column of pictures; None if files are to be read by their paths.
    """

    values: Mapping[str, list[Any]]
    pictures: str | None = None

    @classmethod
    def read(cls, batch: Mapping[str, Any]) -> Columns:
        """Read a batch of any columns.

        Raises:
            ContractError: if it is no dictionary of columns of one length.
        """
        if not isinstance(batch, Mapping):
            raise ContractError(
                "a batch must be a dictionary of columns, got "
                f"{type(batch).__name__}; a frame of pandas becomes one by dict(frame)."
            )
        for name, column in batch.items():
            is_single = not hasattr(column, "__iter__") or getattr(column, "ndim", 1) == 0
            if is_single or isinstance(column, TEXTS):
                raise ContractError(
                    f"column {name!r} must be a list or array with a value for each row, got "
                    f"{shown(column)}; put a single value into a list."
                )
            if getattr(column, "ndim", 1) == 3 and column.shape[-1] <= MOST_CHANNELS:
                raise ContractError(
                    f"column {name!r} must hold images (B, H, W, C), got one of shape "
                    f"{tuple(column.shape)}; add a first axis."
                )
        values = {name: list(column) for name, column in batch.items()}
        lengths = {name: len(column) for name, column in values.items()}
        if len(set(lengths.values())) > 1:
            raise ContractError(f"the columns of a batch must have one length, got {lengths}.")
        return cls(values)

    @classmethod
    def of_pictures(cls, batch: Mapping[str, Any], column: str | None) -> Columns:
        """Read a batch of pictures.

        Args:
            batch: columns by name.
            column: name of the column of pictures; None to look for one of `PICTURES`.

        Raises:
            ContractError: if there is no such column, or more than one.
        """
        columns = cls.read(batch)
        names = [name for name in PICTURES if name in columns.values]
        if column is not None and column not in columns.values:
            raise ContractError(f"the batch has no column {column!r}; it has {columns.listing()}.")
        if column is None and len(names) > 1:
            raise ContractError(
                f"the batch has images in {' and '.join(names)}; name one with column."
            )
        if column is None and not names and PATH not in columns.values:
            raise ContractError(
                f"the batch has no column {', '.join(PICTURES)} or {PATH}; it has "
                f"{columns.listing()}."
            )
        return cls(columns.values, column or (names[0] if names else None))

    def __len__(self) -> int:
        return len(next(iter(self.values.values()), ()))

    def listing(self) -> str:
        """The names of all columns in words."""
        return ", ".join(self.values) or "none"

    def failed_before(self) -> list[str]:
        """For each row the error of an earlier step; empty for none."""
        errors = self.values.get(ERROR, [""] * len(self))
        return [each if isinstance(each, str) else "" for each in errors]  # NaN is an empty cell

    def with_results(self, results: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """All columns, with those of the results in the place of any of the same name."""
        columns = {**self.values, **results}
        return {name: column_of(values) for name, values in columns.items()}


def column_of(values: Sequence[Any]) -> np.ndarray:
    """A column as engines take it: numbers and arrays of one shape as they are, others as objects.

    numpy's own type of bytes would lose zeros at their end.
    """
    arrays = [each for each in values if isinstance(each, np.ndarray)]
    if len(arrays) == len(values) > 0 and len({(a.shape, a.dtype) for a in arrays}) == 1:
        return np.stack(arrays)
    if values and all(isinstance(each, int | float | np.number) for each in values):
        return np.array(values)
    column = np.empty(len(values), dtype=object)
    for place, each in enumerate(values):
        column[place] = each
    return column


def place_of(name: Any, root: str | None, *, is_path: bool = False) -> PurePosixPath:
    """The place of a picture below the folder of the results.

    Args:
        name: its name, or its path.
        root: absolute folder or address that the place begins in; None to keep the last part of a
            path, or the whole of a relative name.
        is_path: whether the name is a path even if it is relative.

    Raises:
        DataError: if the name is empty, leads out of the folder, or does not lie below the root.
    """
    text = without_file_scheme(str(name))
    is_address = is_remote(text)
    text = text.partition("?")[0] if re.match("https?://", text) else text
    shown_name = without_secrets(str(name))
    if root is not None:
        if text and not (is_address or is_remote(root)):
            text = os.path.abspath(text)
        text, start = _without_scheme(text), f"{_without_scheme(root).rstrip('/')}/"
        if not text.startswith(start):
            raise DataError(f"{shown_name} does not lie below {without_secrets(root)}.")
        text = text.removeprefix(start)
    place = PurePosixPath(text)
    if root is None and (is_path or place.is_absolute() or is_address):
        place = PurePosixPath(place.name)
    if not place.name or place.is_absolute() or ".." in place.parts or "\0" in text:
        raise DataError(f"{shown_name!r} is not the name of an image, such as 'a/b.png'.")
    return place


def without_file_scheme(address: str) -> str:
    """A path without `file:` before it, as Spark writes it; any other address as it is."""
    return re.sub(r"^file:(?://)?(?=/[^/])", "", address)


def _without_scheme(address: str) -> str:
    return re.sub(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", "", address)
