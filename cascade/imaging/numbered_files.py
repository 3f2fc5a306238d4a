"""Numbered pictures in a folder: their names, and an index of the prompts that they show."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from cascade.errors import DataError, OutputError
from cascade.imaging.rasters.recorded import read_mark
from cascade.saving.atomic import atomic_file

INDEX = "index.jsonl"
GRID = "grid"
MOST_CHARACTERS = 40  # of the prompt in a name
MOST_BYTES = 120  # of the prompt in a name; file systems allow 255 for the whole name
DIGITS = (5, 7)  # fewest and most of a number before words


def picture_name(number: int, prompt: str, suffix: str = ".png") -> str:
    """The name of a picture: its number, and the first words of its prompt if it has one.

    Args:
        number: number of the picture.
        prompt: any text; what cannot be part of a word, such as emoji, is left out.
        suffix: of the file, `.png` or `.tif`.

    Returns:
        For example `00012-a-cat-with-heart-eyes.png`.
    """
    words = "-".join(re.findall(r"\w+", prompt.lower()))[:MOST_CHARACTERS]
    words = words.encode()[:MOST_BYTES].decode(errors="ignore").strip("-")
    return f"{number:05d}{words and f'-{words}'}{suffix}"


def number_of(file: Path) -> int | None:
    """The number in the name of a picture or a contact sheet; None if it has another name."""
    stem = file.name.split(".")[0]
    word = stem.removeprefix(f"{GRID}-")
    if word.isdecimal():
        return int(word)
    word, dash, _ = stem.partition("-")
    is_number = dash and word.isdecimal() and DIGITS[0] <= len(word) <= DIGITS[1]
    return int(word) if is_number else None


def free_number(folder: Path) -> int:
    """The number of the first new picture, which follows those in the folder."""
    numbers = [number_of(file) for file in _pictures(folder)]
    return max((number for number in numbers if number is not None), default=-1) + 1


@final
class NumberedFiles:
    """The files that a new series of pictures replaces, and the index of the folder.

    Args:
        folder: folder of the pictures.
        numbers: numbers of the new pictures.
        is_listed: whether the index lists the new pictures.

    Raises:
        OutputError: if the index has to be changed but is damaged.
    """

    def __init__(self, folder: Path, numbers: range, *, is_listed: bool) -> None:
        self.index = folder / INDEX
        self._earlier: dict[int, list[Path]] = {}
        for file in _pictures(folder):
            number = number_of(file)
            if number is not None and number in numbers and not file.name.startswith(GRID):
                self._earlier.setdefault(number, []).append(file)
        lines = _lines_of(self.index) if self._earlier or is_listed else []
        self._listed = {
            name for _, name in lines if name is not None
        }  # also of pictures that somebody deleted

    def replace(
        self,
        numbers: Iterable[int],
        written: Collection[Path],
        entries: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """List new pictures in the index, and delete the earlier ones of their numbers.

        Args:
            numbers: numbers of the new pictures.
            written: the files of the new pictures, which stay. Others are deleted only if they
                record that Cascade made them.
            entries: what the index says of each new picture; empty if it does not list them.

        Raises:
            OutputError: if the index is damaged.
        """
        earlier = [file for number in numbers for file in self._earlier.pop(number, [])]
        lines = [f"{json.dumps(each, ensure_ascii=False)}\n" for each in entries]
        names = {file.name for file in earlier}
        names |= self._listed & {each.get("file") for each in entries}
        if not self._forget(names, lines):
            self._append(lines)
        for file in earlier:
            if file not in written and is_ours(file):
                file.unlink()

    def _forget(self, names: set[str], lines: Sequence[str]) -> bool:
        """Replace the lines of files in the index by new ones; returns whether there were any."""
        earlier = _lines_of(self.index) if names else []
        kept = [line for line, name in earlier if name not in names]
        if len(kept) == len(earlier):
            return False
        with atomic_file(self.index) as temporary:
            text = "".join([*(f"{line}\n" for line in kept), *lines])
            temporary.write_text(text, encoding="utf-8")
        return True

    def _append(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        with self.index.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # somebody's editor left the last one out
                    file.write(b"\n")
            file.write("".join(lines).encode())


def _lines_of(index: Path) -> list[tuple[str, str | None]]:
    """The lines of an index, each with the name of the file that it is about; None if of nothing.

    Raises:
        OutputError: if it is not UTF-8 text, or a line is not JSON.
    """
    if not index.is_file():
        return []
    lines: list[tuple[str, str | None]] = []
    for number, line in enumerate(index.read_bytes().split(b"\n"), start=1):
        try:
            text = line.decode().strip()
            entry = json.loads(text) if text else None
        except (ValueError, RecursionError) as error:
            raise OutputError(
                f"{index}, line {number}, is not JSON; correct or delete the line, or move the "
                "file away."
            ) from error
        if text:
            lines.append((text, entry.get("file") if isinstance(entry, dict) else None))
    return lines


def _pictures(folder: Path) -> list[Path]:
    """The files of a folder that may be pictures of Cascade."""
    return [*folder.glob("*.png"), *folder.glob("*.tif")]


def is_ours(file: Path) -> bool:
    """Whether a PNG, or a TIFF of bands, records how it was made."""
    with suppress(DataError):
        return bool(read_mark(file).record)
    return False
