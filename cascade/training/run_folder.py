"""The folder of a run: who may write there, its log, and what it must stay the same in."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade.errors import CascadeError, OutputError
from cascade.saving.atomic import atomic_file, remove_leftovers

MAY_CHANGE = "train.images, learning rates, sampling.*, data.path and how often it saves"

WRITTEN = ("stage", "recipe.yaml", "about.json", "log.jsonl", "report.html")
WRITTEN_INTO = ("checkpoints", "averages", "samples", "generated")


class RunLock:
    """Keeps a second process from writing into a run's folder, and cleans up after killed ones.

    The system ends the lock together with the process, however that ends; a data worker that
    outlives it for a moment does not hold it (POSIX record locks are not inherited).

    Args:
        out: folder of the run.

    Raises:
        OutputError: if another process trains there.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._file = open(out / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
        if self._acquire():
            remove_leftovers(out, WRITTEN)
            for name in WRITTEN_INTO:
                remove_leftovers(out / name)

    def release(self) -> None:
        """Let others write there."""
        self._file.close()

    def _acquire(self) -> bool:
        """Whether it is certain that nobody else writes there."""
        try:
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not a POSIX system
            return False
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return False  # a file system without locks
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self.release()
            raise OutputError(
                f"another process trains in {self.out} ({owner}); end it first, or use a new --out."
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()
        return True


class RunLog:
    """`log.jsonl`: one JSON object in each line, with the `images` seen and the `seconds` trained.

    Most lines hold the values of the last steps. Those with `"kind": "meters"` hold the meters.

    Args:
        file: where it is.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, line: Mapping[str, float | str]) -> None:
        """Add a line."""
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All lines that are whole, in their order."""
        return [line for _, line in self._lines() if line is not None]

    def rewind(self, images_seen: int) -> None:
        """Take out what a killed run wrote after the checkpoint that it goes on from."""
        lines = self._lines()
        kept = [text for text, line in lines if line and line["images"] <= images_seen]
        if len(kept) < len(lines):
            with atomic_file(self.file) as temporary:
                temporary.write_text("".join(kept), encoding="utf-8")

    def _lines(self) -> list[tuple[str, dict[str, Any] | None]]:
        """Each line with what it holds; None for one that was cut off."""
        if not self.file.is_file():
            return []
        text = self.file.read_text(encoding="utf-8", errors="replace")
        return [(line, _parse(line)) for line in text.splitlines(keepends=True)]


def check_same_run(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run goes on with what it began with.

    Args:
        out: folder of the run, for the message.
        before: plain values of the checkpoint.
        now: of the run that wants to go on from it.

    Raises:
        CascadeError: naming every key that differs, and what may.
    """
    old, new = flat(before), flat(json.loads(json.dumps(now)))
    changed = [
        f"{key}={old.get(key)} (now {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise CascadeError(
            f"{out} was trained with {', '.join(changed)}; set this back or use a new --out. "
            f"What may change: {MAY_CHANGE}."
        )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _parse(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        return values if isinstance(values["images"], (int, float)) else None
    except (ValueError, LookupError, TypeError):
        return None
