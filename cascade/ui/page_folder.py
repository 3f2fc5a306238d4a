"""The folder of a page, which goes with it, and signals that end the page in good order."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cascade.ui.sessions import LOCK

FOLDER_PREFIX = "cascade-ui-"
UNLOCKED_S = 3600.0  # after which a folder without a lock is no new one
ENDS = ("SIGTERM", "SIGHUP")  # SIGHUP: the terminal was closed; Windows has none


@contextmanager
def page_folder() -> Iterator[Path]:
    """Make the folder of a page, lock it for the `with` block, and remove it at the end.

    Folders of pages that were killed are removed first.
    """
    remove_leftovers()
    root = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX)).resolve()
    lock = FileLock(root / LOCK)
    lock.acquire()
    try:
        yield root
    finally:
        lock.release()
        shutil.rmtree(root, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the folders of this user's pages that no process serves any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError, Timeout):
            if _is_own(folder) and _is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Whether a folder is one, no link, and belongs to the user of this process."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _is_left(folder: Path) -> bool:
    """Whether no process holds the lock of a folder.

    Raises:
        Timeout: if one does.
    """
    if not (folder / LOCK).exists():
        return time.time() - folder.stat().st_mtime > UNLOCKED_S
    with FileLock(folder / LOCK, timeout=0):
        return True


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals that end a process raise `SystemExit` in the `with` block.

    A signal that is ignored stays so, as `nohup` wants it. Nothing changes outside of the main
    thread, where signals do not arrive.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in ENDS):
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
