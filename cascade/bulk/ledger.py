"""What was done: a file of JSON lines that outlives a kill at any moment.

A line is appended when a process finds itself alone at work ("started"), when a result is made,
when one that was made before is found without a line ("found"), and when one cannot be made
("failed").
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cascade.errors import OutputError

Event = Literal["made", "found", "failed"]


class Ledger:
    """The lines of all processes that share a folder of results.

    Args:
        file: where they are kept; None keeps them in memory.

    Attributes:
        made: the last line of each result that was ever made or found, by its key.
        now: the last line of each job, by its key and what was wanted, since work was begun by the
            first process now at work.

    Raises:
        OutputError: if the file cannot be written.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.made: dict[str, dict[str, Any]] = {}
        self.now: dict[tuple[str, str], dict[str, Any]] = {}
        self._read_bytes = 0
        if file is not None:
            self._write(b"")
        self.refresh()

    def start(self) -> None:
        """Begin a new round of work: what failed before is tried again."""
        self._append({"event": "started"})

    def add(self, event: Event, key: str, wanted: str, values: Mapping[str, Any]) -> None:
        """Say what became of a job.

        Args:
            event: what.
            key: of its result.
            wanted: fingerprint of its settings.
            values: what else to keep.
        """
        self._append({"event": event, "output": key, "wanted": wanted, **values})

    def refresh(self) -> None:
        """Take in what was added since, by whatever process."""
        if self.file is None:
            return
        try:
            with self.file.open("rb") as file:
                file.seek(self._read_bytes)
                new, _, _ = file.read().rpartition(b"\n")
        except OSError as error:
            raise self._error(error) from error
        if new:
            self._read_bytes += len(new) + 1
            for text in new.split(b"\n"):
                self._take_in(text)

    def _append(self, line: dict[str, Any]) -> None:
        line["process"] = os.getpid()
        text = json.dumps(line).encode()
        if self.file is None:
            self._take_in(text)
        else:
            self._write(text + b"\n")
            self.refresh()

    def _write(self, text: bytes) -> None:
        """In one call, so that the lines of processes do not mix."""
        assert self.file is not None
        try:
            opened = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if _is_torn(opened):
                    text = b"\n" + text
                if os.write(opened, text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(opened)
        except OSError as error:
            raise self._error(error) from error

    def _take_in(self, text: bytes) -> None:
        try:
            line = json.loads(text)
            event = line["event"]
            if event == "started":
                self.now = {}
                return
            key, wanted = line["output"], line["wanted"]
        except (ValueError, LookupError, TypeError):
            return  # cut off by a kill
        self.now[key, wanted] = line
        if event in ("made", "found"):
            self.made[key] = line

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.file}: {error.strerror or error}.")


def _is_torn(opened: int) -> bool:
    """Whether the last line was cut off, so that another would be lost behind it."""
    if os.lseek(opened, 0, os.SEEK_END) == 0:
        return False
    os.lseek(opened, -1, os.SEEK_END)
    return os.read(opened, 1) != b"\n"
