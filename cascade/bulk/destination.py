"""Where the finished results of a command go: a folder of this machine, or one of an object store.

Results are always made in a folder of this machine, because ledger, locks and writers of files need
one. For a store this is a folder in the user's cache: each file that is complete is copied to the
store and removed here. What the store holds is known by one listing. The ledger stays in the cache,
and a copy of it lies with the results, so that any machine can resume.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import final

from filelock import FileLock

from cascade.bulk.jobs import Plan
from cascade.bulk.ledger import RESULT_EVENTS, ledger_file, part_ledgers, part_of_ledger
from cascade.bulk.making import DiskError
from cascade.bulk.parts import Part
from cascade.bulk.records import result_stamp
from cascade.bulk.sheets import is_older
from cascade.data.object_stores import StoredObject, listed_address
from cascade.data.remote import default_cache, is_remote
from cascade.data.stored_folder import StoredFolder
from cascade.errors import DataError, OutputError
from cascade.saving.atomic import check_writable_folder

LEDGER_AGE_S = 60.0  # of the copy of the ledger in a store, at most


class Destination(ABC):
    """The place of finished results. Paths are those at which they are made on this machine.

    Attributes:
        address: the address of the folder, as listings spell it; empty for this machine.
    """

    address: str = ""

    @abstractmethod
    def check_apart(self, plan: Plan) -> None:
        """Check that no result would replace an input.

        Raises:
            OutputError: naming the input.
        """

    @abstractmethod
    def name(self, path: Path) -> str:
        """The name of a result in messages."""

    @abstractmethod
    def stamp(self, path: Path) -> list[int]:
        """Size of a finished result in bytes, and numbers that change whenever it does.

        Raises:
            OSError: if it does not exist.
        """

    @abstractmethod
    def has(self, path: Path) -> bool:
        """Whether there is a file with the name of a result."""

    @abstractmethod
    def lacks(self, path: Path, result: Path) -> bool:
        """Whether a file that is made beside a result is missing, or older than the result."""

    @abstractmethod
    def parts(self, folder: Path, command: str) -> set[Part]:
        """The parts of the inputs that have a ledger among the results."""

    @abstractmethod
    def reading(self, path: Path) -> AbstractContextManager[Path]:
        """A block in which a finished result can be read at the path that it gets."""

    @abstractmethod
    def begin(self, files: Sequence[Path]) -> None:
        """Get ready for making files: those that exist beside the last one are there for checks.

        Raises:
            CascadeError: if they cannot be fetched, or no result can be written.
        """

    @abstractmethod
    def deliver(self, files: Sequence[Path]) -> None:
        """Bring complete files to their place.

        Args:
            files: the result comes last; those beside it that were not made are left out.

        Raises:
            DiskError: if they cannot be written.
            OutputError: if the result is missing.
        """

    @abstractmethod
    def fetch_ledger(self, file: Path) -> None:
        """Add to a ledger what runs on other machines noted about results.

        Raises:
            CascadeError: if that cannot be read, or the ledger cannot be written.
        """

    @abstractmethod
    def keep_ledger(self, file: Path | None, *, now: bool = False) -> None:
        """Keep the ledger with the results.

        Args:
            file: the ledger; None if there is none.
            now: whether to renew a copy that is not old yet.

        Raises:
            OutputError: if it cannot be written.
        """


@final
class LocalFolder(Destination):
    """Results stay where they are made."""

    def check_apart(self, plan: Plan) -> None:
        """See `Destination`; `plan_jobs` has compared the files of this machine."""

    def name(self, path: Path) -> str:
        """See `Destination`."""
        return str(path)

    def stamp(self, path: Path) -> list[int]:
        """See `Destination`."""
        return result_stamp(path)

    def has(self, path: Path) -> bool:
        """See `Destination`."""
        return os.path.lexists(path)

    def lacks(self, path: Path, result: Path) -> bool:
        """See `Destination`."""
        return is_older(path, result)

    def parts(self, folder: Path, command: str) -> set[Part]:
        """See `Destination`."""
        return set(part_ledgers(folder, command))

    def reading(self, path: Path) -> AbstractContextManager[Path]:
        """See `Destination`."""
        return nullcontext(path)

    def begin(self, files: Sequence[Path]) -> None:
        """See `Destination`."""

    def deliver(self, files: Sequence[Path]) -> None:
        """See `Destination`."""

    def fetch_ledger(self, file: Path) -> None:
        """See `Destination`."""

    def keep_ledger(self, file: Path | None, *, now: bool = False) -> None:
        """See `Destination`."""


@final
class StoreFolder(Destination):
    """Results are copied to an object store when they are complete.

    Args:
        address: address of the folder of the results.
        kept_in: part of the user's cache for the folder of this machine.
        is_listed: whether to list the folder, which a single result does not need.

    Raises:
        CascadeError: if the store cannot be reached, or the folder cannot be written.
    """

    def __init__(self, address: str, kept_in: str = "results", *, is_listed: bool = True) -> None:
        self.stored = StoredFolder(address, is_listed=is_listed)
        self._is_listed = is_listed
        digest = hashlib.sha256(self.stored.address.encode()).hexdigest()
        self.folder = default_cache().with_name(kept_in) / digest[:32]
        self.address = listed_address(address)
        self._sent_s = 0.0  # when the ledger was copied last
        check_writable_folder(self.folder)

    def check_apart(self, plan: Plan) -> None:
        """See `Destination`."""
        images = [job.source.image for job in plan.jobs]
        inputs = {image.address for image in images if isinstance(image, StoredObject)}
        for name in (shard.source.name for shard in plan.shards):
            with suppress(DataError):  # commands that webdataset reads from are in no store
                inputs |= {listed_address(name)} if is_remote(name) else set()
        for path, _ in plan.files():
            if f"{self.address}/{self._place(path)}" in inputs:
                raise OutputError(f"{self.name(path)} is an input itself; choose another place.")

    def name(self, path: Path) -> str:
        """See `Destination`."""
        return f"{self.stored.name}/{self._place(path)}".removesuffix("/.")

    def stamp(self, path: Path) -> list[int]:
        """See `Destination`."""
        return self.stored.stamp(self._place(path))

    def has(self, path: Path) -> bool:
        """See `Destination`."""
        return self._place(path) in self.stored

    def lacks(self, path: Path, result: Path) -> bool:
        """See `Destination`."""  # files beside a result are delivered before it
        return not self.has(path)

    def parts(self, folder: Path, command: str) -> set[Part]:
        """See `Destination`."""
        parts = (part_of_ledger(name, command) for name in self.stored)
        return {part for part in parts if part is not None}

    @contextmanager
    def reading(self, path: Path) -> Iterator[Path]:
        """See `Destination`."""  # at its own path another process may be making it
        with tempfile.TemporaryDirectory(prefix="cascade-") as folder:
            copy = Path(folder) / path.name
            self.stored.fetch(self._place(path), copy)
            yield copy

    def begin(self, files: Sequence[Path]) -> None:
        """See `Destination`."""
        _remove(files)  # of a process that was killed
        if not self._is_listed:  # else the ledger has been written there before
            try:
                self.stored.check_writable(self._place(files[-1]))
            except OutputError as error:
                raise DiskError(str(error)) from error
        for path in files[:-1]:
            if self.has(path):
                self.stored.fetch(self._place(path), path)

    def deliver(self, files: Sequence[Path]) -> None:
        """See `Destination`."""
        if not files[-1].exists():
            raise OutputError(
                f"{self.name(files[-1])}: its file {files[-1]} is gone; run the command again."
            )
        files = [path for path in files if path.exists()]
        for path in files:
            try:
                self.stored.send(path, self._place(path))
            except OutputError as error:  # no further one could be written either
                raise DiskError(str(error)) from error
        _remove(files)

    def fetch_ledger(self, file: Path) -> None:
        """See `Destination`."""
        if not self.has(file):
            return
        with FileLock(file.with_suffix(".merge")), tempfile.TemporaryDirectory() as name:
            copy = Path(name) / file.name
            self.stored.fetch(self._place(file), copy)
            known = set(file.read_bytes().split(b"\n")) if file.exists() else set()
            lines = [
                verified
                for line, verified in _lines_about_results(copy)
                if not known & {line, verified}
            ]
            with file.open("ab") as ledger:
                ledger.write(b"".join(line + b"\n" for line in [b"", *lines]) if lines else b"")

    def fetch_ledgers(self, command: str) -> None:
        """Copy the ledgers of a command for all inputs and for parts, and forget earlier copies.

        Raises:
            CascadeError: if they cannot be copied.
        """
        for file in self.folder.glob(".cascade-*.jsonl"):
            file.unlink()
        whole = ledger_file(self.folder, command).name
        for name in self.stored:
            if name == whole or part_of_ledger(name, command) is not None:
                self.stored.fetch(name, self.folder / name)

    def keep_ledger(self, file: Path | None, *, now: bool = False) -> None:
        """See `Destination`."""
        is_old = time.monotonic() - self._sent_s > LEDGER_AGE_S
        if file is not None and (now or is_old):
            with FileLock(file.with_suffix(".merge")):  # so that no older copy is the last one
                self.stored.send(file, self._place(file))
            self._sent_s = time.monotonic()

    def _place(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def destination_of(out: Path | str, *, as_file: bool) -> tuple[Destination, Path]:
    """Where results go, and the folder or file of this machine in which they are made.

    Args:
        out: a folder or a file, or the address of one in a store.
        as_file: whether it is the file of a single result.

    Raises:
        CascadeError: if it is in a store that cannot be reached, or names no bucket.
    """
    if not is_remote(str(out)):
        return LocalFolder(), Path(out)
    address = str(out).rstrip("/")
    folder, _, name = address.rpartition("/")
    destination = StoreFolder(folder if as_file else address, is_listed=not as_file)
    return destination, destination.folder / name if as_file else destination.folder


def _lines_about_results(file: Path) -> Iterator[tuple[bytes, bytes]]:
    """Each line about a result, and what this machine notes: not that it made the result itself."""
    for line in file.read_bytes().split(b"\n"):
        with suppress(ValueError, LookupError, TypeError):  # a killed process wrote half of it
            values = json.loads(line)
            if values["event"] == "made":
                values |= {"event": "verified", "lost": []}
                yield line, json.dumps(values).encode()
            elif values["event"] in RESULT_EVENTS:
                yield line, line


def _remove(files: Iterable[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
