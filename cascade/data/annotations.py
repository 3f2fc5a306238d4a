"""Labels and captions from what lies beside an image.

An image has the fields of all of these; where two give the same field, the first one wins:

1. `NAME.json` beside `NAME.png`, in a folder or a shard: the text values of a JSON object.
2. `NAME.txt` beside it: the field `caption`.
3. In a folder, `metadata.csv` or else `metadata.jsonl` at its root: the columns beside `file_name`,
   which names an image by its path from there (the convention of Hugging Face's `imagefolder`).
4. In a folder, the first folder level: the field `class`.
5. `data.name_pattern`, a regular expression that is searched for in the file's name without folder
   and suffix: its named groups, such as `(?P<class>[a-z]+)_\\d+`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

from cascade.errors import DataError


def json_labels(data: bytes, name: str) -> dict[str, str]:
    """The text values of a JSON object.

    Raises:
        DataError: naming the file, if it is not one.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f"{name}: expected a JSON object.")
    return {key: value for key, value in values.items() if isinstance(value, str)}


def caption(data: bytes, name: str) -> dict[str, str]:
    """The field `caption` from a text file.

    Raises:
        DataError: naming the file, if it is not UTF-8.
    """
    try:
        return {"caption": data.decode("utf-8-sig").strip()}
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error.reason}).") from error


class NamePattern:
    """Fields from the names of files.

    Args:
        pattern: a regular expression with named groups, or None for no fields.

    Raises:
        DataError: if it is not valid, or has no named group.
    """

    def __init__(self, pattern: str | None) -> None:
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise DataError(f"data.name_pattern {pattern!r} is not valid: {error}.") from error
        if self._pattern is not None and not self._pattern.groupindex:
            raise DataError(
                f"data.name_pattern {pattern!r} has no named group such as (?P<class>[a-z]+)."
            )

    def fields(self, key: str) -> dict[str, str]:
        """The named groups that are found in the last part of a key; empty if it does not match."""
        found = self._pattern and self._pattern.search(key.rpartition("/")[2])
        return {name: text for name, text in found.groupdict().items() if text} if found else {}


def read_metadata(folder: Path, files: Iterable[str]) -> dict[str, dict[str, str]]:
    """Fields by file from `metadata.csv` or `metadata.jsonl`, if the folder has one.

    Args:
        folder: the root of the images.
        files: their paths from there; rows about others are left out.

    Raises:
        DataError: if it cannot be read, lacks the column `file_name`, or names none of the files.
    """
    path = next(
        (p for p in (folder / "metadata.csv", folder / "metadata.jsonl") if p.exists()), None
    )
    if path is None:
        return {}
    known = set(files)
    found = {}
    for number, row in enumerate(_rows(path), start=1):
        if "file_name" not in row:
            raise DataError(f"{path}: row {number} has no file_name, the path of its image.")
        file = row.pop("file_name")
        if file in known:
            found[file] = {field: text for field, text in row.items() if text}
    if not found:
        raise DataError(f"{path}: names none of the images; file_name is the path from {folder}.")
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            lines = [line for line in text.split("\n") if line.strip()]
            return [json_labels(line.encode(), str(path)) for line in lines]
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    return [{k: v for k, v in row.items() if k and isinstance(v, str)} for row in rows]
