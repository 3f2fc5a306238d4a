"""Numbered pictures in a folder: their names, and an index of the prompts that they show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from PIL import Image

from cascade.imaging.tiff_pages import tifffile
from cascade.imaging.writing import RECORD
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
    """

    def __init__(self, folder: Path, numbers: range) -> None:
        self.index = folder / INDEX
        self._earlier: dict[int, list[Path]] = {}
        for file in _pictures(folder):
            number = number_of(file)
            if number is not None and number in numbers and not file.name.startswith(GRID):
                self._earlier.setdefault(number, []).append(file)
        if self._earlier:
            self._forget({file.name for files in self._earlier.values() for file in files})

    def replace(self, number: int, written: Iterable[Path]) -> None:
        """Delete the earlier pictures of a number, if Cascade made them.

        Args:
            number: number of a new picture.
            written: the files of the new pictures, which stay.
        """
        for file in self._earlier.pop(number, []):
            if file not in written and _is_ours(file):
                file.unlink()

    def add_to_index(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Append a line of JSON for each picture to the index."""
        with self.index.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(each, ensure_ascii=False)}\n" for each in entries)

    def _forget(self, names: set[str]) -> None:
        """Drop the lines of files from the index."""
        if not self.index.is_file():
            return
        lines = self.index.read_text(encoding="utf-8").split("\n")[:-1]
        kept = [line for line in lines if json.loads(line)["file"] not in names]
        with atomic_file(self.index) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _pictures(folder: Path) -> list[Path]:
    """The files of a folder that may be pictures of Cascade."""
    return [*folder.glob("*.png"), *folder.glob("*.tif")]


def _is_ours(file: Path) -> bool:
    """Whether a PNG, or a TIFF of bands, records how it was generated."""
    if file.suffix == ".tif":
        with suppress(Exception), tifffile().TiffFile(file) as tiff:  # it raises many kinds
            return tiff.pages[0].description.startswith(f'{{"{RECORD}":')
        return False
    try:
        with Image.open(file) as picture:
            return RECORD in picture.info
    except OSError:
        return False
