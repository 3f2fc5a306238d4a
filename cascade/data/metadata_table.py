"""`metadata.csv` or `metadata.jsonl`: a table of labels, matched with the images that it names.

A label is used only if there is no doubt whose it is. Names must be equal, except for the Unicode
form; a name that differs in case may be that of another image, so it is reported and not used.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cascade.data.annotations import json_values, texts_of, without_texts
from cascade.data.names import NameIndex, quoted
from cascade.data.notes import (
    CONTRADICTING_ROWS,
    IMAGE_WITHOUT_ROW,
    OTHER_CASE,
    OTHER_SLASH,
    OTHER_UNICODE_FORM,
    REPEATED_ROW,
    ROW_WITHOUT_IMAGE,
    UNREAD_TABLE,
    UNREADABLE_ROW,
    FaultKind,
    SourceFault,
)
from cascade.errors import DataError

METADATA_FILES = ("metadata.csv", "metadata.jsonl")
NOT_A_TABLE_OF_LABELS = (
    "is not read; a table of labels must be called metadata.csv or metadata.jsonl, be at the root "
    "of the folder, and have a column file_name."
)
TABLE_SUFFIXES = {".csv", ".jsonl", ".json", ".tsv", ".parquet", ".xls", ".xlsx", ".ods"}


@dataclass(frozen=True)
class _Row:
    line: int  # in the file, from 1
    file: str
    fields: dict[str, str]
    problem: str | None = None
    other_values: dict[str, Any] = field(default_factory=dict)


@dataclass
class TableLabels:
    """The labels that a table gives to images.

    Attributes:
        path: the table; None if the folder has none.
        columns: the fields that the table gives to any image.
        fields: labels by field of each image that has a row.
        other_values: what rows of JSON hold besides text, by image and name.
        errors: by image whose labels are not known, `name: reason`.
        faults: rows and images that do not fit together.
    """

    path: Path | None = None
    columns: set[str] = field(default_factory=set)
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    other_values: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    faults: list[SourceFault] = field(default_factory=list)


def read_metadata(folder: Path, images: Sequence[str]) -> TableLabels:
    """Read `metadata.csv` or else `metadata.jsonl`, if the folder has one.

    Args:
        folder: root folder of the images.
        images: the images' paths relative to `folder`.

    Raises:
        DataError: if the table cannot be read, has no column `file_name`, or names none of the
            images.
    """
    path = next((folder / name for name in METADATA_FILES if (folder / name).exists()), None)
    if path is None:
        return TableLabels()
    matching = _Matching(path, images)
    for row in _csv_rows(path) if path.suffix == ".csv" else _jsonl_rows(path):
        matching.add(row)
    return matching.result()


class _Matching:
    """Assigns rows to images, one after another."""

    def __init__(self, path: Path, images: Iterable[str]) -> None:
        self.path = path
        self.images = list(images)
        self.names = NameIndex(self.images)
        self.labels = TableLabels(path)
        self.lines: dict[str, list[int]] = {}  # of the rows of each image
        self.alike: set[str] = set()  # images that a row means but for the case of its name

    def add(self, row: _Row) -> None:
        image = self.names.same(str(PurePosixPath(row.file)))
        self.labels.columns.update(row.fields)
        if row.problem is not None and image is not None:
            self.lines.setdefault(image, []).append(row.line)
            self._refuse(UNREADABLE_ROW, image, f"line {row.line} of {self.path} {row.problem}")
        elif row.problem is not None:
            self._note(UNREADABLE_ROW, row, row.problem)
        elif image is None:
            self._note_unmatched(row)
        else:
            self._assign(row, image)

    def _assign(self, row: _Row, image: str) -> None:
        if str(PurePosixPath(row.file)) != image:
            reason = (
                f"names {quoted(image)} in another Unicode form (NFC, NFD); its labels are used."
            )
            self._note(OTHER_UNICODE_FORM, row, reason, harmless=True)
        self.lines.setdefault(image, []).append(row.line)
        if image in self.labels.errors:
            return
        first = self.labels.fields.setdefault(image, row.fields)
        if row.other_values:
            self.labels.other_values.setdefault(image, row.other_values)
        if first == row.fields and len(self.lines[image]) > 1:
            reason = f"repeats line {self.lines[image][0]}, for {quoted(image)}."
            self._note(REPEATED_ROW, row, reason, harmless=True)
        elif first != row.fields:
            self.labels.errors[image] = ""  # the message names all lines, when they are known

    def _note_unmatched(self, row: _Row) -> None:
        alike = self.names.alike(row.file)
        if alike is None:
            self._note(ROW_WITHOUT_IMAGE, row, f"there is no image {quoted(row.file)}.")
            return
        self.alike.add(alike)
        kind, what = OTHER_CASE, "upper and lower case"
        if "\\" in row.file:
            kind, what = OTHER_SLASH, "the kind of slash"
        names = f"names {quoted(row.file)}, but the image is {quoted(alike)}"
        self._note(kind, row, f"{names}; check {what}.")

    def result(self) -> TableLabels:
        folder = self.path.parent
        if not self.lines:
            hint = f" {self.labels.faults[0]}" if self.labels.faults else ""
            raise DataError(
                f"{self.path}: names none of the images; file_name must be the path relative to "
                f"{folder}.{hint}"
            )
        for image in self.images:
            if self.labels.errors.get(image) == "":
                lines = ", ".join(map(str, self.lines[image]))
                reason = f"lines {lines} of {self.path} give it different labels; keep one."
                self._refuse(CONTRADICTING_ROWS, image, reason)
            elif image not in self.lines and image not in self.alike:
                reason = f"has no row in {self.path.name}."
                fault = SourceFault(IMAGE_WITHOUT_ROW, str(folder / image), reason)
                self.labels.faults.append(fault)
        return self.labels

    def _refuse(self, kind: FaultKind, image: str, reason: str) -> None:
        """Record that an image's labels are not known, so that it counts as broken."""
        fault = SourceFault(kind, str(self.path.parent / image), reason)
        self.labels.errors[image] = str(fault)
        self.labels.faults.append(fault)

    def _note(self, kind: FaultKind, row: _Row, reason: str, *, harmless: bool = False) -> None:
        name = f"{self.path}: line {row.line}"
        self.labels.faults.append(SourceFault(kind, name, reason, harmless))


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        kind = " but UTF-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ""
        raise DataError(f"{path}: is not UTF-8 text{kind}; save it as UTF-8.") from error


def _csv_rows(path: Path) -> Iterator[_Row]:
    """The rows of a CSV file, with the number of the line in which each begins.

    Spaces around names of columns and labels, as after a comma, are no part of them.
    """
    text = io.StringIO(_read_text(path), newline="")
    reader, begin = csv.reader(text, strict=True, skipinitialspace=True), 1
    try:
        columns = [column.strip() for column in next(reader, [])]
        _check_columns(path, columns)
        begin = reader.line_num + 1
        for values in reader:
            if any(value.strip() for value in values):
                yield _csv_row(begin, columns, values)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read (row of line {begin}: {error}).") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "file_name" not in columns:
        names = ", ".join(map(repr, columns)) or "nothing"
        hint = " Separate the columns by commas." if len(columns) == 1 else ""
        raise DataError(
            f"{path}: no column file_name, the path of each image; its first line names {names}."
            f"{hint}"
        )
    repeated = [name for name, count in Counter(columns).items() if name and count > 1]
    if repeated:
        raise DataError(f"{path}: has several columns {repeated[0]!r}; rename all but one.")


def _csv_row(line: int, columns: Sequence[str], values: Sequence[str]) -> _Row:
    row = dict(zip(columns, values, strict=False))
    file = row.pop("file_name", "")
    fields = {column: text.strip() for column, text in row.items() if column and text.strip()}
    surplus = any(values[len(columns) :])
    if surplus or len(values) < len(columns):
        problem = (
            f"has {len(values)} values for {len(columns)} columns; put quotes around texts that "
            "contain a comma."
        )
        return _Row(line, file, {}, problem)
    return _Row(line, file, fields, None if file else "names no file.")


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    for line, text in enumerate(_read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        values = json_values(text.encode(), f"{path}: line {line}")
        labels = {name: text for name, text in texts_of(values).items() if text}
        file = labels.pop("file_name", "")
        problem = None if file else "has no text file_name."
        yield _Row(line, file, labels, problem, without_texts(values))


def unread_tables(files: Iterable[str], folder: Path, table: Path | None) -> list[SourceFault]:
    """Find tables that look as if they gave labels, but are not read.

    These are tables called metadata, and if there is no table of labels, all at the root. A table
    of another name may be about something else, so it is not counted as a fault of the labels.

    Args:
        files: paths of the files that are neither images nor labels.
        folder: the root folder of the images.
        table: the table that is read, if there is one.
    """
    reason = f"{table} is read instead." if table else NOT_A_TABLE_OF_LABELS
    faults = []
    for path in map(Path, files):
        is_metadata = path.stem.casefold() == "metadata"
        is_alone = table is None and path.parent == folder
        if path.suffix.lower() in TABLE_SUFFIXES and (is_metadata or is_alone):
            faults.append(SourceFault(UNREAD_TABLE, str(path), reason, harmless=not is_metadata))
    return faults
