"""Notes that the processes sharing a folder of results leave for each other and for later runs.

The ledger is a file of JSON lines that survives a kill at any moment. It serves three purposes:

- within a round (from the start of the first process to the end of the last one) it lists which
  results were made and which failed, so that no process repeats the work of another;
- for later runs it lists size and times of each result when it was made or last checked, so that
  unchanged results need not be opened again;
- for results written without metadata it keeps the record that they cannot contain themselves.

The results decide, not the ledger: a line about a result counts only as long as the file on disk is
the one that the line describes (`cascade/bulk/records.py`).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cascade.errors import OutputError

Event = Literal["made", "verified", "failed"]


def ledger_file(folder: Path, command: str) -> Path:
    """The file of the lines about the results of a command in a folder."""
    return folder / f".cascade-{command}.jsonl"


class Ledger:
    """The lines of all processes that share a folder of results.

    Args:
        file: file of the lines; None keeps them in memory.

    Attributes:
        results: the last line about each result that was made or verified, by the key of its job.
        this_round: the last line about each job in this round, by its key and settings id.

    Raises:
        OutputError: if the file cannot be written.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.results: dict[str, dict[str, Any]] = {}
        self.this_round: dict[tuple[str, str], dict[str, Any]] = {}
        self._read_bytes = 0
        if file is not None:
            self._write(b"")
        self.refresh()

    def start_round(self) -> None:
        """Forget earlier failures, so that those jobs are tried again."""
        self._append({"event": "started"})

    def add(self, event: Event, key: str, settings_id: str, values: Mapping[str, Any]) -> None:
        """Note what became of a job.

        Args:
            event: `made`, `verified` (the result existed and is right) or `failed`.
            key: key of the job.
            settings_id: hash of its settings, see `settings_id` in `cascade/bulk/records.py`.
            values: further values of the line; anything that JSON can hold.

        Raises:
            OutputError: if the line cannot be written.
        """
        self._append({"event": event, "output": key, "settings_id": settings_id, **values})

    def refresh(self) -> None:
        """Read the lines that any process added since the last call.

        Raises:
            OutputError: if the file cannot be read.
        """
        if self.file is None:
            return
        try:
            with self.file.open("rb") as file:
                file.seek(self._read_bytes)
                whole_lines, _, _ = file.read().rpartition(b"\n")
        except OSError as error:
            raise self._cannot_write(error) from error
        if whole_lines:
            self._read_bytes += len(whole_lines) + 1
            for line in whole_lines.split(b"\n"):
                self._take_in(line)

    def _append(self, values: dict[str, Any]) -> None:
        line = json.dumps({**values, "process": os.getpid()}).encode()
        if self.file is None:
            self._take_in(line)
        else:
            self._write(line + b"\n")
            self.refresh()

    def _write(self, data: bytes) -> None:
        """Append in one system call, so that the lines of several processes do not mix."""
        assert self.file is not None
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)  # of Windows
            descriptor = os.open(self.file, flags, 0o644)
            try:
                if _ends_in_half_a_line(descriptor):
                    data = b"\n" + data
                if os.write(descriptor, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _take_in(self, line: bytes) -> None:
        try:
            values = json.loads(line)
            event = values["event"]
            if event == "started":
                self.this_round = {}
                return
            key, settings_id = values["output"], values["settings_id"]
        except (ValueError, LookupError, TypeError):
            return  # a killed process wrote half of it
        self.this_round[key, settings_id] = values
        if event in ("made", "verified"):
            self.results[key] = values

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.file}: {error.strerror or error}.")


def _ends_in_half_a_line(descriptor: int) -> bool:
    """Whether a killed process left a line without a line break, to which the next would stick."""
    if os.lseek(descriptor, 0, os.SEEK_END) == 0:
        return False
    os.lseek(descriptor, -1, os.SEEK_END)
    return os.read(descriptor, 1) != b"\n"
