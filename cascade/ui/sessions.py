"""The visits of the page: each has a folder of its own, which goes when the visit ends.

The name of a folder is 256 random bits that only its visitor learns, since the addresses of all
files begin with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from cascade.errors import ContractError
from cascade.ui.jobs import Job

ORPHAN_S = 3600.0  # after which an upload that no visit has asked for is removed
PREFIX = "visit-"


class Session:
    """One visit: its folder, its uploads and its job.

    Args:
        folder: a new folder that no other visit has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads: set[Path] = set()
        self.job: Job | None = None
        folder.mkdir()

    def begin(self, tab: str, make_job: Callable[[Path], Job]) -> Job:
        """Make the visit's next job, in a new folder that replaces the last one of the same tab.

        Args:
            tab: name of the tab that shows the job.
            make_job: makes the job from its folder.

        Raises:
            ContractError: if the last job of this visit is not over.
        """
        if self.job is not None and not self.job.is_over:
            raise ContractError("your last job is not finished; wait for it or cancel it.")
        folder = self.folder / tab
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.job = make_job(folder)
        return self.job

    def cancel(self) -> None:
        """Stop the job, if there is one, at its next step."""
        if self.job is not None:
            self.job.cancel()

    def close(self) -> None:
        """Stop the job and remove the folder."""
        if self.job is not None:
            self.job.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All visits of a page.

    Args:
        root: folder for their folders, which also holds the uploads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def of(self, visitor: str | None) -> Session:
        """The session of a visitor, by the key that the browser was given; made when it is new."""
        key = visitor or ""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(self.root / f"{PREFIX}{secrets.token_hex(32)}")
            return self._sessions[key]

    def own(self, session: Session, uploads: Iterable[Path]) -> None:
        """Note which uploads belong to a session. Equal files of two visitors are one upload."""
        with self._lock:
            session.uploads |= set(uploads)

    def end(self, visitor: str | None) -> None:
        """End a visit, and remove what belongs to nobody else."""
        with self._lock:
            session = self._sessions.pop(visitor or "", None)
        if session is not None:
            session.close()
            with self._lock:
                for path in session.uploads - self._owned():
                    _remove_upload(path)
        self._remove_orphans()

    def close(self) -> None:
        """End all visits, and remove everything."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for session in sessions:
            session.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _owned(self) -> set[Path]:
        return {path for session in self._sessions.values() for path in session.uploads}

    def _remove_orphans(self) -> None:
        """Remove old uploads of visitors who left before they used them."""
        with self._lock:
            owned = self._owned()
            for path in self.root.glob("*"):
                if path.name.startswith(PREFIX):
                    continue
                for file in [path] if path.is_file() else list(path.iterdir()):
                    with suppress(OSError):
                        if file not in owned and time.time() - file.stat().st_mtime > ORPHAN_S:
                            _remove_upload(file)


def _remove_upload(path: Path) -> None:
    """Remove an upload, and its folder once it is empty."""
    with suppress(OSError):
        path.unlink()
        os.rmdir(path.parent)
