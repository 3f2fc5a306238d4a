"""Labels and captions from files beside an image, from folder names and from file names.

All of these sources can add fields to an image. Where two give the same field, the earlier one in
this list wins:

1. `NAME.json` beside `NAME.png`, in a folder or a shard: the text values of a JSON object.
2. `NAME.txt` beside it: the field `caption`.
3. In a folder, `metadata.csv` or else `metadata.jsonl` at its root: every column except
   `file_name`, which names an image by its path from the root (the convention of Hugging Face's
   `imagefolder`).
4. In a folder, the first folder level: the field `class`.
5. `name_pattern`, a regular expression that is searched for in the file's name without folder
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

METADATA_FILES = ("metadata.csv", "metadata.jsonl")


def json_labels(data: bytes, name: str) -> dict[str, str]:
    """Read labels from a JSON object; values that are not text are ignored.

    Args:
        data: content of the JSON file.
        name: name of the file, for error messages.

    Raises:
        DataError: if the content is not a JSON object.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({error}).") from error
    if not isinstance(values, dict):
        raise DataError(f"{name}: expected a JSON object.")
    return {key: value for key, value in values.items() if isinstance(value, str)}


def caption(data: bytes, name: str) -> dict[str, str]:
    """Read the field `caption` from a text file.

    Args:
        data: content of the text file.
        name: name of the file, for error messages.

    Raises:
        DataError: if the content is not UTF-8.
    """
    try:
        return {"caption": data.decode("utf-8-sig").strip()}
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error.reason}).") from error


class NamePattern:
    """Extracts label fields from file names.

    Args:
        pattern: a regular expression with named groups, or None for no fields.

    Raises:
        DataError: if the expression is not valid or has no named group.
    """

    def __init__(self, pattern: str | None) -> None:
        try:
            self._pattern = None if pattern is None else re.compile(pattern)
        except re.error as error:
            raise DataError(f"name_pattern {pattern!r} is not valid: {error}.") from error
        if self._pattern is not None and not self._pattern.groupindex:
            raise DataError(
                f"name_pattern {pattern!r} has no named group such as (?P<class>[a-z]+)."
            )

    def fields(self, key: str) -> dict[str, str]:
        """Match the last part of a key; empty if it does not match.

        Args:
            key: path of an image within its source, without suffix, such as `pets/cat_01`.
        """
        match = self._pattern and self._pattern.search(key.rpartition("/")[2])
        return {name: text for name, text in match.groupdict().items() if text} if match else {}


def read_metadata(folder: Path, files: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read `metadata.csv` or `metadata.jsonl`, if the folder has one.

    Args:
        folder: root folder of the images.
        files: the images' paths relative to `folder`; rows about other files are ignored.

    Returns:
        Label fields by file.

    Raises:
        DataError: if the table cannot be read, has no column `file_name`, or names none of the
            files.
    """
    path = next((folder / name for name in METADATA_FILES if (folder / name).exists()), None)
    if path is None:
        return {}
    images = set(files)
    fields = {}
    for number, row in enumerate(_rows(path), start=1):
        if "file_name" not in row:
            raise DataError(f"{path}: row {number} has no file_name, the path of its image.")
        file = row.pop("file_name")
        if file in images:
            fields[file] = {column: text for column, text in row.items() if text}
    if not fields:
        raise DataError(
            f"{path}: names none of the images; file_name must be the path relative to {folder}."
        )
    return fields


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
