"""Notes that the processes sharing a folder of results leave for each other and for later runs.

The ledger is a file of JSON lines that survives a kill at any moment. It serves three purposes:

- within a round (from the start of the first process to the end of the last one) it lists which
  results were made and which failed, so that no process repeats the work of another;
- for later runs it lists size and times of each result when it was made or last checked, so that
  unchanged results need not be opened again;
- for results written without metadata it keeps the record that they cannot contain themselves.

The ledger of a part of the inputs (`parts.py`) serves a fourth one: each round begins with what the
part has to do and by which settings, so that `joining.py` knows what is missing without looking at
the inputs.

The results decide, not the ledger: a line about a result counts only as long as the file on disk is
the one that the line describes (`cascade/bulk/records.py`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from cascade.bulk.parts import Part
from cascade.errors import OutputError

Event = Literal["made", "verified", "packed", "unpacked", "failed", "left_out"]
RESULT_EVENTS = ("made", "verified", "packed")  # what lines about existing results say


def ledger_file(folder: Path, command: str, part: Part | None = None) -> Path:
    """The file of the lines about the results of a command in a folder.

    Args:
        folder: folder of the results.
        command: `upscale`, `colourise`, `restore` or `edit`.
        part: which part of the inputs they were made from; None for all inputs.
    """
    of_part = "" if part is None else f"-{part.number}-of-{part.count}"
    return folder / f".cascade-{command}{of_part}.jsonl"


def part_ledgers(folder: Path, command: str) -> dict[Part, Path]:
    """The ledgers of parts in a folder, in the order of the parts."""
    parts = {
        path: part_of_ledger(path.name, command) for path in folder.glob(f".cascade-{command}-*")
    }
    return dict(sorted((part, path) for path, part in parts.items() if part is not None))


def part_of_ledger(name: str, command: str) -> Part | None:
    """The part of the inputs that a file of this name is the ledger of; None if it is not one."""
    match = re.fullmatch(rf"\.cascade-{command}-(\d+)-of-(\d+)\.jsonl", name)
    return None if match is None else Part(count=int(match[2]), number=int(match[1]))


class Ledger:
    """The lines of all processes that share a folder of results.

    Args:
        file: file of the lines; None keeps them in memory.
        is_read_only: whether to leave the file as it is.

    Attributes:
        results: the last line about each result that was made or verified, by the key of its job.
        packed: the last line about each shard of results, by its key.
        this_round: the last line about each job in this round, by its key and settings id.
        unpacked: the line about each shard that failed as a whole in this round, in the same way.
        head: what this round began with; None if no round did.
        planned: names of the inputs of a part in this round, by key and settings id.

    Raises:
        OutputError: if the file cannot be written.
    """

    def __init__(self, file: Path | None, *, is_read_only: bool = False) -> None:
        self.file = file
        self.results: dict[str, dict[str, Any]] = {}
        self.packed: dict[str, dict[str, Any]] = {}
        self.head: dict[str, Any] | None = None
        self.planned: dict[tuple[str, str], str] = {}
        self.this_round: dict[tuple[str, str], dict[str, Any]] = {}
        self.unpacked: dict[tuple[str, str], dict[str, Any]] = {}
        self._settings: dict[str, Any] = {}  # of the record that was read last, by name
        self._read_bytes = 0
        if file is not None and not is_read_only:
            self._write(b"")
        self.refresh()

    @classmethod
    def in_memory(cls, file: Path | None) -> Ledger:
        """The lines of a file, which may be missing; those that are added stay in memory.

        Raises:
            OutputError: if the file cannot be read.
        """
        ledger = cls(file if file is not None and file.exists() else None, is_read_only=True)
        ledger.file = None
        return ledger

    def start_round(
        self, head: Mapping[str, Any] | None = None, planned: Iterable[tuple[str, str, str]] = ()
    ) -> None:
        """Forget earlier failures, so that those jobs are tried again.

        Args:
            head: for a part, what all parts must agree on; anything that JSON can hold.
            planned: for a part, key, settings id and name of the input of everything it has to do.

        Raises:
            OutputError: if the lines cannot be written.
        """
        self._append(
            {"event": "started", **(head or {})},
            *(
                {"event": "planned", "output": key, "settings_id": settings_id, "input": name}
                for key, settings_id, name in planned
            ),
        )

    def add(self, event: Event, key: str, settings_id: str, values: Mapping[str, Any]) -> None:
        """Note what became of a job.

        Args:
            event: `made`, `verified` (the result existed and is right), `packed` (a shard of
                results is complete), `unpacked` (it cannot be completed) or `failed`.
            key: key of the job.
            settings_id: hash of its settings, see `settings_id` in `cascade/bulk/records.py`.
            values: further values of the line; anything that JSON can hold.

        Raises:
            OutputError: if the line cannot be written.
        """
        self._append({"event": event, "output": key, "settings_id": settings_id, **values})

    def add_written(self, key: str, values: Mapping[str, Any]) -> None:
        """Note that the file of a result is complete and gets its name next.

        If the process is killed then, later runs know the result, though no line says that it was
        made.

        Args:
            key: key of the job.
            values: further values of the line; anything that JSON can hold.

        Raises:
            OutputError: if the line cannot be written.
        """
        self._append({"event": "written", "output": key, "settings_id": "", **values})

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

    def _append(self, *values: dict[str, Any]) -> None:
        lines = [json.dumps({**each, "process": os.getpid()}).encode() for each in values]
        if self.file is not None:
            self._write(b"".join(line + b"\n" for line in lines))
            self.refresh()
            return
        for line in lines:
            self._take_in(line)

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
            values = self._parsed(line)
            event = values["event"]
            if event == "started":
                self.this_round, self.unpacked, self.planned, self.head = {}, {}, {}, values
                return
            key, settings_id = values["output"], values["settings_id"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return  # a killed process wrote half of it
        if event == "planned":
            self.planned[key, settings_id] = str(values.get("input", key))
            return
        if event == "packed":
            self.packed[key] = values
            return
        if event == "unpacked":
            self.unpacked[key, settings_id] = values
            return
        self.this_round[key, settings_id] = values
        if event in ("made", "verified", "written"):
            self.results[key] = values
        if event == "written":  # it is not yet made
            del self.this_round[key, settings_id]

    def _parsed(self, line: bytes) -> dict[str, Any]:
        """Parse a line; keys and settings that lines have in common are kept once in memory."""
        values = json.loads(line, object_pairs_hook=_with_shared_keys)
        record = values.get("record", {})
        for key, value in record.items():
            if isinstance(value, dict):
                if self._settings.get(key) != value:
                    self._settings[key] = value
                record[key] = self._settings[key]
        return values

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write {self.file}: {error.strerror or error}.")


def _with_shared_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {sys.intern(key): value for key, value in pairs}


def _ends_in_half_a_line(descriptor: int) -> bool:
    """Whether a killed process left a line without a line break, to which the next would stick."""
    if os.lseek(descriptor, 0, os.SEEK_END) == 0:
        return False
    os.lseek(descriptor, -1, os.SEEK_END)
    return os.read(descriptor, 1) != b"\n"
