"""Claims on jobs, when several processes share a folder of results.

Every claim is a lock of the operating system on a small file, taken through `filelock`. The system
drops the lock when its process ends, however it ends, so the job of a killed process is free at
once. The locks also work between machines, as far as the shared file system supports them.

- `FILE` guards arrivals and departures. It is the only file that stays.
- `FILE.d/process-*`: each process holds one while it is at work.
- `FILE.d/job-*`: a job locks the slot that the hash of its key picks. Slots keep the number of
  files small; a process that finds a slot busy takes another job first.

The last process to leave removes `FILE.d`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from cascade.errors import OutputError

SLOTS = 4096
NO_LOCKS_ERRORS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
logger = logging.getLogger(__name__)


class Claims:
    """Locks on the jobs of one folder of results.

    If the file system has no locks, a warning is logged once and every claim succeeds.

    Args:
        file: the lock file that stays; None if no other process shares the results. Then every
            claim succeeds and nothing is written.

    Raises:
        OutputError: if the file cannot be written.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._has_locks = file is not None
        self._door: BinaryIO | None = None  # locked while this process arrives or leaves
        self._presence: BinaryIO | None = None  # locked while this process is at work
        self._slots: dict[str, BinaryIO] = {}  # by the key of the job
        if file is not None:
            _open(file).close()

    def join(self) -> bool:
        """Start to work beside the other processes.

        Returns:
            Whether no other process is at work. If so, others that arrive wait for `let_in`.
        """
        if self._file is None or not self._has_locks:
            return True
        self._door = self._lock(self._file, wait=True)
        alone = not self._others_are_at_work()
        self._presence = self._lock(self._folder() / f"process-{uuid.uuid4().hex}")
        if not alone:
            self.let_in()
        return alone

    def let_in(self) -> None:
        """Let in the processes that wait in `join`."""
        if self._door is not None:
            self._door.close()
        self._door = None

    def leave(self) -> bool:
        """Stop working.

        Returns:
            Whether no other process is at work. If so, others that arrive wait for `close`.
        """
        if self._file is None or not self._has_locks:
            return True
        if self._door is None:
            self._door = self._lock(self._file, wait=True)
        if self._presence is not None:
            self._presence.close()
        self._presence = None
        alone = not self._others_are_at_work()
        if not alone:
            self.let_in()
        return alone

    def take(self, key: str) -> bool:
        """Claim a job.

        Returns:
            Whether this process may work on it. If not, another process works on it, or on a job
            that shares its slot.
        """
        if not self._has_locks or key in self._slots:
            return True
        slot = self._lock(self._folder() / f"job-{_slot_of(key)}")
        if slot is not None:
            self._slots[key] = slot
        return slot is not None

    def give_back(self, key: str) -> None:
        """Let other processes claim a job."""
        if key in self._slots:
            self._slots.pop(key).close()

    def close(self) -> None:
        """Release all claims; the last process removes the lock files."""
        for key in list(self._slots):
            self.give_back(key)
        if self._presence is not None:
            with suppress(OutputError):  # the disk is gone, and the lock files with it
                self.leave()
        if self._door is not None:
            shutil.rmtree(self._folder(), ignore_errors=True)
        self.let_in()

    def _folder(self) -> Path:
        """The folder of the lock files that are removed at the end."""
        assert self._file is not None
        folder = self._file.with_name(f"{self._file.name}.d")
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        return folder

    def _others_are_at_work(self) -> bool:
        """Look for other processes and remove the locks of killed ones; needs the door's lock."""
        if not self._has_locks:
            return False
        for path in self._folder().glob("process-*"):
            presence = self._lock(path)
            if presence is None:
                return True
            presence.close()
            with suppress(OSError):
                path.unlink()
        return False

    def _lock(self, path: Path, *, wait: bool = False) -> BinaryIO | None:
        """Open and lock a file; None if another process holds it."""
        file = _open(path)
        try:
            if not self._has_locks or lock_descriptor(file.fileno(), blocking=wait):
                return file
        except OSError as error:
            if error.errno not in NO_LOCKS_ERRORS:
                raise _cannot_write(path, error) from error
            logger.warning("no locks on this file system: start one process only (%s).", error)
            self._has_locks = False
            return file
        file.close()
        return None


def _slot_of(key: str) -> int:
    digest = hashlib.sha256(os.fsencode(key)).digest()
    return int.from_bytes(digest[:8], "big") % SLOTS


def _open(path: Path) -> BinaryIO:
    """Open a lock file for writing, which exclusive locks on NFS require."""
    try:
        return path.open("ab")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}.")
