"""Labels and captions from files beside an image, from folder names and from file names.

All of these sources can add fields to an image. Where two give the same field, the earlier one in
this list wins:

1. `NAME.json` beside `NAME.png`, in a folder or a shard: the values of a JSON object that are
   texts, or lists of texts.
2. `NAME.txt` beside it: the field `caption`.
3. In a folder, `metadata.csv` or else `metadata.jsonl` at its root: every column except
   `file_name`, which names an image by its path from the root (the convention of Hugging Face's
   `imagefolder`); see `cascade.data.metadata_table`. Fields that it gives to any image are taken
   from neither folders nor file names.
4. In a folder, the first folder level: the field `class`.
5. `name_pattern`, a regular expression that is searched for in the file's name without folder
   and suffix: its named groups, such as `(?P<class>[a-z]+)_\\d+`.

Each line of a caption is a phrasing of its own, one of which is drawn for each image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cascade.errors import DataError


def json_labels(data: bytes, name: str) -> dict[str, str]:
    """Read labels from a JSON object: its values that are text, or lists of texts.

    A list becomes one text with a line for each; see also `json_values`.
    """
    return texts_of(json_values(data, name))


def json_values(data: bytes, name: str) -> dict[str, Any]:
    """Read a JSON object.

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
    return values


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The values that are text; a list of texts becomes one with a line for each."""
    return {key: _text(value) for key, value in values.items() if _is_text(value)}


def without_texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not labels, because they are not text."""
    return {key: value for key, value in values.items() if not _is_text(value)}


def _is_text(value: Any) -> bool:
    if isinstance(value, list) and value:
        return all(isinstance(each, str) for each in value)
    return isinstance(value, str)


def _text(value: str | list[str]) -> str:
    """A text, or the texts of a list as lines; line breaks within them become spaces."""
    return value if isinstance(value, str) else "\n".join(" ".join(t.split()) for t in value)


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
