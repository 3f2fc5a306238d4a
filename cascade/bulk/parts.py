"""A part of the inputs, for machines that do not share a folder of results.

There are two ways to share work, and each process uses one of them:

- **Claims** (`claims.py`) are for processes that see one folder of results. They need no numbers:
  processes may come and go, and the others take over the work of one that was killed. They do need
  a file system whose locks work between the machines.
- **Parts** are for machines that share nothing. Part I of N takes the inputs whose hash falls into
  it, so every input belongs to exactly one part, whatever the order of the listing and whoever
  lists it. A part writes a ledger of its own, which says which part it is, so that `joining.py`
  can tell what is missing when all are done. Processes of the same part share it by claims.

The hash is that of the place of the result without the endings of pictures, so that inputs which
compete for one name (`a.jpg` and `a.tif`, both written as PNG) are always in the same part. What
the names of files beside results have added does not count either: the picture `a-doubt.png` has
the name of such a file of `a.png`. The folders that lead to the inputs do not count, since machines
may see them under other paths. Shards are not split: their hash is that of their own name.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Self, final

from cascade.errors import ContractError
from cascade.imaging.rasters.reading import RASTER_SUFFIXES

# folder and endings of the names of files beside results, see `jobs.py`
BESIDE = re.compile(r"^compare/|-(doubt|variants|seed\d+)$")
SUFFIXES = tuple(RASTER_SUFFIXES)  # among them those of pictures


@final
@dataclass(frozen=True, order=True)
class Part:
    """One of several parts of the inputs.

    Attributes:
        count: number of parts, at least 1.
        number: number of this part, from 1 to `count`.

    Raises:
        ContractError: if there is no such part.
    """

    count: int
    number: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ContractError(
                f"there is no part {self}; of {self.count} parts, the first is 1/{self.count} and "
                f"the last {self.count}/{self.count}."
                if self.count > 0
                else f"there is no part {self}; the number of parts must be at least 1."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The part that a text such as `3/8` names.

        Raises:
            ContractError: if it names none.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), flags=re.ASCII)
        if match is None:
            raise ContractError(f"a part is a text such as 3/8, the third of eight; got {text!r}.")
        return cls(count=int(match[2]), number=int(match[1]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, place: PurePath) -> bool:
        """Whether an input belongs to this part.

        Args:
            place: path of its result below the folder of the results, with the input's suffix.
        """
        digest = hashlib.sha256(_shared_name(place).encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def _shared_name(place: PurePath) -> str:
    """The part of a name that all inputs have which may compete for one result."""
    name = unicodedata.normalize("NFC", place.as_posix()).casefold()
    while True:
        shorter = BESIDE.sub("", name)
        shorter = shorter.rpartition(".")[0] if shorter.endswith(SUFFIXES) else shorter
        if shorter == name:
            return name
        name = shorter


@final
@dataclass(frozen=True)
class Slice:
    """A part of the inputs of a command, with what all parts of it must agree on.

    Attributes:
        part: which part it is.
        inputs: number of pictures and shards in all parts.
        inputs_id: hash of their names, the same for every part that lists the same ones.
    """

    part: Part
    inputs: int
    inputs_id: str

    def head(
        self, settings: Mapping[str, Any], unreadable: Sequence[tuple[str, str]]
    ) -> dict[str, Any]:
        """What a part's ledger notes at the beginning of a round, as JSON holds it.

        Args:
            settings: the settings of all results.
            unreadable: name and reason of each folder or shard that could not be read.
        """
        return {
            "part": str(self.part),
            "inputs": self.inputs,
            "inputs_id": self.inputs_id,
            "settings": dict(settings),
            "unreadable": list(unreadable),
        }
