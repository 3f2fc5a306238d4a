"""A job: work in a thread of its own that a page watches and can cancel."""

from __future__ import annotations

import logging
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from cascade.bulk.progress import ProgressUpdate
from cascade.bulk.workload import rough_duration
from cascade.errors import CascadeError, first_line
from cascade.sampling.watching import watched
from cascade.ui.device_queue import DeviceQueue
from cascade.ui.previews import preview

ARCHIVE = "cascade.zip"
PREVIEW_S = 0.4  # between previews
STOP_S = 20.0  # for which a visit that ends waits for its job
Status = Literal["waiting", "working", "done", "cancelled", "failed"]
logger = logging.getLogger(__name__)


class CancelledError(BaseException):
    """The user cancels a job. No `Exception`, so that no failed picture takes its place."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished picture.

    Attributes:
        caption: what is written below it.
        file: the picture.
        sheet: its before/after sheet; None for a picture that was generated.
    """

    caption: str
    file: Path
    sheet: Path | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """What a page shows of a job.

    Attributes:
        status: what the job does.
        share: how much is done, in [0, 1].
        text: one line about what happens.
        notes: lines that the user should know.
        faults: a line for each thing that failed.
        preview: address of the images of the last step, as a `data:` URL; empty for none.
        results: the finished pictures.
        archive: a zip of all results; None until the job is over.
    """

    status: Status = "waiting"
    share: float = 0.0
    text: str = "Starting …"
    notes: Sequence[str] = ()
    faults: Sequence[str] = ()
    preview: str = ""
    results: Sequence[Result] = ()
    archive: Path | None = None


class Job:
    """Work that is done in a thread, when the device is free.

    Args:
        folder: the job's folder; its path is left out of all messages.
        queue: the queue of the device.
        work: does the work. It reports by the methods of the job, which raise `CancelledError` when
            the user has cancelled.
    """

    def __init__(self, folder: Path, queue: DeviceQueue, work: Callable[[Job], None]) -> None:
        self.folder = folder
        self._queue = queue
        self._work = work
        self._view = View()
        self._cancel = threading.Event()
        self._files: Mapping[str, Path] = {}  # of the zip
        self._last_preview_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    # ---- for the page ---------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._view.status in ("done", "cancelled", "failed")

    def start(self) -> None:
        """Queue up and begin.

        Raises:
            ContractError: if too many jobs wait.
        """
        self._queue.join(self)
        self._thread.start()

    def view(self) -> View:
        """What to show now."""
        view = self._view
        if view.status != "waiting" or not (before := self._queue.place(self)):
            return view
        return replace(view, text=f"Waiting: {before} before yours. You may cancel.")

    def cancel(self) -> None:
        """End the job at its next step."""
        self._cancel.set()

    def join(self) -> None:
        """Wait until the job is over."""
        self._thread.join()

    def stop(self) -> None:
        """End the job, and wait until it has ended, but not for ever."""
        self.cancel()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    # ---- for the work ---------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `CancelledError` if the user has cancelled."""
        if self._cancel.is_set():
            raise CancelledError

    def show(self, **changes: object) -> None:
        """Change what the page shows; see `View`."""
        self.check()
        self._view = replace(self._view, **changes)  # pyright: ignore[reportArgumentType]

    def on_progress(self, update: ProgressUpdate) -> None:
        """Show the progress of a bulk command."""
        self.check()
        if update.message and update.kind in ("note", "failure"):
            line = self._without_folders(update.message)
            name = "notes" if update.kind == "note" else "faults"
            self.show(**{name: (*getattr(self._view, name), line)})
        if update.name and update.total:
            done = update.finished + update.part * (not update.message)
            self.show(share=min(1.0, done / update.total), text=self._progress_text(update))

    def on_step(self, images: Tensor) -> None:
        """Show the images of a step, (B, C, H, W) in [-1, 1], from time to time."""
        self.check()
        if time.monotonic() - self._last_preview_s >= PREVIEW_S:
            self.show(preview=preview(images) or self._view.preview)
            self._last_preview_s = time.monotonic()

    def offer(self, results: Sequence[Result]) -> None:
        """Show finished pictures, also those of a job that was cancelled."""
        self._view = replace(self._view, results=results)

    def pack(self, files: Mapping[str, Path]) -> None:
        """Offer files as one zip, by their names in it; none if there are no files.

        It is written when the work has ended, so that nobody waits for it at the device.
        """
        self._files = dict(files)

    def _write_archive(self) -> None:
        if not self._files:
            return
        archive = self.folder / ARCHIVE
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
            for name, file in self._files.items():
                target.write(file, name)
        self._view = replace(self._view, archive=archive)

    def _progress_text(self, update: ProgressUpdate) -> str:
        parts = [f"Image {min(update.finished + 1, update.total):,} of {update.total:,}"]
        parts += [part for part in (Path(update.name).name, update.page) if part]
        if update.left_s is not None:
            parts.append(f"about {rough_duration(update.left_s)} left")
        return ", ".join(parts)

    def _without_folders(self, text: str) -> str:
        """A message without the paths of this machine."""
        for folder in ("inputs", "results", ""):
            text = text.replace(f"{self.folder / folder}/", "")
        return " ".join(text.split())

    def _run(self) -> None:
        status: Status = "failed"
        fault = ""
        try:
            try:
                with self._queue.turn(self, self.check), watched(self.on_step):
                    self.show(status="working")
                    self._work(self)
            finally:
                self._write_archive()
            status = "done"
        except CancelledError:
            status = "cancelled"
        except CascadeError as error:
            fault = self._without_folders(str(error))
        except MemoryError:
            fault = "there is not enough memory; use a smaller image."
        except Exception as error:  # the page must not show a traceback, the log may
            logger.exception("a job of the page failed")
            fault = f"unexpected {type(error).__name__}: {self._without_folders(first_line(error))}"
        faults = (*self._view.faults, fault) if fault else self._view.faults
        self._view = replace(self._view, status=status, faults=faults, preview="")
