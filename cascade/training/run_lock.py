"""RunLock: keeps other processes out of the folder of a run, and cleans up after killed ones."""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import final

from filelock import lock_descriptor

from cascade.errors import OutputError
from cascade.saving.atomic import remove_leftovers
from cascade.training.run_folder import FILES, FOLDERS, LOCK


@final
class RunLock:
    """Keeps a second process from writing into a run's folder, and cleans up after killed ones.

    The operating system releases the lock when the process ends, however it ends. A data worker
    that lives a moment longer does not hold it. In one process, several locks on a folder are one,
    which stays until the last of them is released: a notebook may build a trainer again.

    Args:
        out: folder of the run; it must exist.

    Raises:
        OutputError: if another process is training in this folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._held: _Held | None = None
        self.acquire()

    def acquire(self) -> None:
        """Keep other processes out, unless this lock does so already.

        Raises:
            OutputError: if another process is training in this folder.
        """
        if self._held is not None:
            return
        # unbuffered: Windows lets nobody else read the first byte, which is what it locks
        file = open(self.out / LOCK, "a+b", buffering=0)  # noqa: SIM115
        facts = os.fstat(file.fileno())
        place = (facts.st_dev, facts.st_ino)
        held = _HELD.get(place)
        if held is None:
            held = _HELD[place] = _Held(self.out, file)
        else:
            file.close()
        self._held = held

    def release(self) -> None:
        """Let other processes write to the folder."""
        self._held = None


class _Held:
    """The lock of this process on a folder; it ends with the last reference to it."""

    def __init__(self, out: Path, file: FileIO) -> None:
        self.file = file
        weakref.finalize(self, self.file.close)
        if self._is_certain(out):
            with suppress(OSError):  # it only tells others who holds the lock
                self.file.truncate(0)
                self.file.write(f" process {os.getpid()} on {socket.gethostname()}".encode())
            remove_leftovers(out, FILES)
            for name in FOLDERS:
                remove_leftovers(out / name)

    def _is_certain(self, out: Path) -> bool:
        """Lock the file; returns whether it is certain that no other process writes here.

        Raises:
            OutputError: if another process has locked it.
        """
        try:
            is_ours = lock_descriptor(self.file.fileno(), blocking=False)
        except OSError:  # the file system has no locks
            return False
        if not is_ours:
            self.file.seek(1)
            owner = self.file.read().decode(errors="replace").strip() or "unknown"
            self.file.close()
            raise OutputError(
                f"another process is training in {out} ({owner}); stop it first, or use another "
                "folder."
            )
        return True


_HELD: weakref.WeakValueDictionary[tuple[int, int], _Held] = weakref.WeakValueDictionary()


def _close_in_child() -> None:
    """Close the lock files in a forked process, which would hold the locks of its parent."""
    for held in list(_HELD.values()):
        held.file.close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_close_in_child)
