"""The visits of the page: each has a folder of its own, which goes when the visit ends.

A visit ends when its visitor leaves. One of which nothing was heard for `IDLE_S` ends too, since a
visitor who never connected cannot leave. An open page reports every `REPORT_S`.

The name of a folder is 256 random bits that only its visitor learns, since the addresses of all
files begin with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cascade.errors import ContractError
from cascade.ui.jobs import Job

ORPHAN_S = 3600.0  # after which an upload that no visit has asked for is removed
EMPTY_S = 600.0  # after which an empty file is, of which Gradio leaves many
IDLE_S = 3600.0  # after which a visit ends of which nothing was heard, and which has no job
REPORT_S = 600.0  # between reports of an open page
SWEEP_S = 10.0  # between looks for what may be removed
GIB = 2**30
PREFIX = "visit-"
LOCK = ".lock"  # in the root: whoever serves the page holds it


class Session:
    """One visit: its folder, its uploads and its job.

    Args:
        folder: a new folder that no other visit has.

    Attributes:
        heard_s: when the visitor last did something, by `time.monotonic`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads: set[Path] = set()
        self.job: Job | None = None
        self.heard_s = time.monotonic()
        self._folders: dict[str, Path] = {}  # of the last job of each tab
        self._count = 0
        self._is_closed = False
        folder.mkdir(parents=True)

    @property
    def is_idle(self) -> bool:
        """Whether there is no job, and nothing was heard for long."""
        is_at_work = self.job is not None and not self.job.is_over
        return not is_at_work and time.monotonic() - self.heard_s > IDLE_S

    def begin(self, tab: str, make_job: Callable[[Path], Job]) -> Job:
        """Start the visit's next job, in a new folder that replaces the last one of the same tab.

        Args:
            tab: name of the tab that shows the job.
            make_job: makes the job from its folder.

        Raises:
            ContractError: if the last job of this visit is not over, too many jobs wait, or the
                visit has ended.
        """
        if self._is_closed:
            raise ContractError("this visit has ended; load the page again.")
        if self.job is not None and not self.job.is_over:
            raise ContractError("your last job is not finished; wait for it or cancel it.")
        self._count += 1
        folder = self.folder / f"{tab}-{self._count}"
        folder.mkdir()
        job = make_job(folder)
        try:
            job.start()
        except ContractError:
            folder.rmdir()
            raise
        self.job = job
        if tab in self._folders:
            shutil.rmtree(self._folders[tab], ignore_errors=True)
        self._folders[tab] = folder
        return job

    def cancel(self) -> None:
        """Stop the job, if there is one, at its next step."""
        if self.job is not None:
            self.job.cancel()

    def close(self) -> None:
        """Stop the job and remove the folder; again later, if the job does not stop soon."""
        self._is_closed = True
        if self.job is not None:
            self.job.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.job is not None and not self.job.is_over:
            threading.Thread(target=self._remove_after, args=(self.job,), daemon=True).start()

    def _remove_after(self, job: Job) -> None:
        """Remove the folder once a job has ended, which may have written to it until then."""
        job.join()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All visits of a page.

    Args:
        root: folder for their folders, which also holds the uploads.
        most_gib: size of the root in GiB above which no job begins, and uploads that belong to no
            visit are removed at once.
    """

    def __init__(self, root: Path, most_gib: float = 50) -> None:
        self.root = root
        self._most_bytes = most_gib * GIB
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._sessions: dict[str, Session] = {}

    def of(self, visitor: str | None) -> Session:
        """The session of a visitor, by the key that the browser was given; made when it is new."""
        key = visitor or ""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(self.root / f"{PREFIX}{secrets.token_hex(32)}")
            session = self._sessions[key]
            session.heard_s = time.monotonic()
            return session

    def hear(self, visitor: str | None) -> None:
        """Note that a visitor still has the page open. A visit that has ended stays so."""
        with self._lock:
            session = self._sessions.get(visitor or "")
            if session is not None:
                session.heard_s = time.monotonic()

    def begin(self, visitor: str | None, tab: str, make_job: Callable[[Path], Job]) -> Job:
        """Start the next job of a visitor; see `Session.begin`.

        Raises:
            ContractError: if it cannot begin, or the disk space of the page is used up.
        """
        if self._used_bytes() > self._most_bytes:
            raise ContractError("the disk space of this page is used up; try again later.")
        return self.of(visitor).begin(tab, make_job)

    def cancel(self, visitor: str | None) -> None:
        """Stop the job of a visitor, if there is one, at its next step."""
        with self._lock:
            session = self._sessions.get(visitor or "")
        if session is not None:
            session.cancel()

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
                    self._remove_upload(path)
        self._remove_orphans()

    def sweep(self) -> None:
        """End idle visits, and remove what belongs to nobody."""
        with self._lock:
            idle = [key for key, session in self._sessions.items() if session.is_idle]
        for key in idle:
            self.end(key)
        self._remove_orphans()

    def keep_sweeping(self) -> None:
        """Sweep from time to time until the page closes, in a thread."""

        def work() -> None:
            while not self._is_closed.wait(SWEEP_S):
                self.sweep()

        threading.Thread(target=work, daemon=True).start()

    def close(self) -> None:
        """End all visits, and remove everything."""
        self._is_closed.set()
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for session in sessions:
            session.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _owned(self) -> set[Path]:
        return {path for session in self._sessions.values() for path in session.uploads}

    def _remove_orphans(self) -> None:
        """Remove old uploads that no visit has asked for; if the disk is full, new ones as well."""
        is_full = self._used_bytes() > self._most_bytes
        with self._lock:
            owned = self._owned()
            for file in self._uploads():
                with suppress(OSError):
                    facts = file.stat()
                    age_s = time.time() - facts.st_mtime
                    kept_s = ORPHAN_S if facts.st_size else EMPTY_S
                    if file not in owned and (is_full or age_s > kept_s):
                        self._remove_upload(file)

    def _uploads(self) -> Iterator[Path]:
        """All files of the root outside of the visits' folders."""
        for path in self.root.glob("*"):
            if path.name != LOCK and not path.name.startswith(PREFIX):
                with suppress(OSError):
                    yield from [path] if path.is_file() else list(path.iterdir())

    def _remove_upload(self, path: Path) -> None:
        """Remove an upload, and its folder once it is empty; never the root."""
        with suppress(OSError):
            path.unlink()
            if path.parent != self.root:
                os.rmdir(path.parent)

    def _used_bytes(self) -> int:
        """Size of all files in the root."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(OSError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total
