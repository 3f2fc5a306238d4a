"""Finds out which input an existing result was made from, so that later runs name results alike."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from cascade.bulk.destination import Destination
from cascade.bulk.inputs import InputPicture
from cascade.bulk.ledger import Ledger, ledger_file
from cascade.bulk.parts import Part
from cascade.bulk.records import INPUT
from cascade.errors import CascadeError
from cascade.imaging.rasters.recorded import read_mark


class EarlierResults:
    """The results that earlier runs left in a folder.

    Args:
        folder: folder of the results; None if there is none.
        destination: where they are now.
        command: `upscale`, `colourise`, `restore` or `edit`.
        part: the part of the inputs that they were made from; None for all.
    """

    def __init__(
        self,
        folder: Path | None,
        destination: Destination,
        command: str,
        part: Part | None = None,
    ) -> None:
        self.folder = folder
        self.destination = destination
        self.command = command
        self.part = part

    def made_from(self, place: PurePosixPath, picture: InputPicture) -> bool:
        """Whether the file at a place below the folder was made from a picture.

        The ledger is asked first, because it opens no file. Without a line about the result, the
        input's SHA-256 in the result's own record decides.
        """
        if self.folder is None:
            return False
        path = self.folder / place
        if not self.destination.has(path) or path.is_dir():
            return False
        line = {} if self._ledger is None else self._ledger.results.get(place.as_posix(), {})
        if line.get("input") == picture.name:
            return True
        try:
            record = line.get("record") or self._record(path)
            return record.get(INPUT) == picture.sha256()
        except CascadeError:
            return False

    def _record(self, path: Path) -> Mapping[str, Any]:
        with self.destination.reading(path) as file:
            return read_mark(file).record

    @cached_property
    def _ledger(self) -> Ledger | None:
        if self.folder is None:
            return None
        file = ledger_file(self.folder, self.command, self.part)
        return Ledger(file) if file.is_file() else None
