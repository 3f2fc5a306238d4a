"""Who works on what, among processes that share a folder of results.

Every job is one byte of a common lock file, found by a hash of its name, and whoever holds the
POSIX record lock on that byte works on it. The system takes the locks back together with the
process, however that ends, so the job of a killed process is free at once; they also work between
machines that share a file system. Byte 0 is held by all that are at work, so that the first to come
and the last to go know that they are.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from pathlib import Path
from types import ModuleType

from cascade.errors import OutputError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

PRESENCE = 0
POLL_S = 0.05
logger = logging.getLogger(__name__)


class Claims:
    """Locks on the jobs of a folder; where there are none to be had, everything is free.

    Args:
        file: the lock file; it must be opened nowhere else in this process, because the system
            gives up a process's locks on a file when it closes it anywhere. None for no locks.

    Raises:
        OutputError: if the file cannot be made.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = None
        if file is None or fcntl is None:
            return
        try:
            self._file = open(file, "a+b")  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"cannot write {file}: {error.strerror or error}.") from error

    def join(self) -> bool:
        """Come to the others: whether there are none, who then wait until `let_in` is called."""
        while not self._lock(PRESENCE, shared=False):
            if self._lock(PRESENCE, shared=True):
                return False
            time.sleep(POLL_S)
        return True

    def let_in(self) -> None:
        """Let others come."""
        self._lock(PRESENCE, shared=True)

    def leave(self) -> bool:
        """Leave the others: whether there are none; then none can come until `close` is called."""
        self._unlock(PRESENCE)  # or two that leave together would each see the other
        return self._lock(PRESENCE, shared=False)

    def take(self, key: str) -> bool:
        """Claim a job: whether nobody else has."""
        return self._lock(_place(key), shared=False)

    def give_back(self, key: str) -> None:
        """Let others have a job."""
        self._unlock(_place(key))

    def close(self) -> None:
        """Give everything back and go."""
        if self._file is not None:
            self._file.close()

    def _lock(self, place: int, *, shared: bool) -> bool:
        if self._file is None:
            return True
        assert fcntl is not None
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.lockf(self._file, kind | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            logger.warning("no locks on this file system: start one process only (%s).", error)
            self.close()
            self._file = None
        return True

    def _unlock(self, place: int) -> None:
        if self._file is not None:
            assert fcntl is not None
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


def _place(key: str) -> int:
    """A byte from 1 on; two of a million jobs share one with a chance of 1 to 10 million."""
    number = int.from_bytes(hashlib.sha256(os.fsencode(key)).digest()[:8], "big")
    return 1 + (number >> 2)
