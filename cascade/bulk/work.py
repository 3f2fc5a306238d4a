"""The loop over many pictures, shared between processes, which goes on where it stopped."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.bulk.claims import Claims
from cascade.bulk.jobs import Job, Variants
from cascade.bulk.ledger import Event, Ledger
from cascade.bulk.records import INPUT, described, difference, fingerprint, recorded
from cascade.bulk.sheets import Before, write_comparison, write_variants
from cascade.errors import CascadeError, OutputError
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.picture_writing import (
    check_exif,
    check_format,
    write_picture,
)
from cascade.saving.atomic import remove_leftovers

WAIT_S = 0.2  # before those that others had claimed are looked at again
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
Make = Callable[[Picture, int, Callable[[int, int], None]], Picture]


class NothingCanBeWrittenError(OutputError):
    """The disk is full or gone."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How each picture is worked on.

    Attributes:
        command: `upscale` or `colourise`.
        done: what was done to it, in a word, such as `upscaled`.
        make: called with the picture, the seed, and what to call with the parts done and all.
        settings: to record; the seed is added.
        metadata: whether they, EXIF and resolution go into the results.
        overwrite: whether results that were made otherwise may be replaced.
        factor: by which the sides of a picture grow.
        before: what the left side of a before/after sheet shows, see `write_comparison`.
    """

    command: str
    done: str
    make: Make
    settings: Mapping[str, Any]
    metadata: bool = True
    overwrite: bool = False
    factor: float = 1.0
    before: Before = "bicubic"


@dataclass(frozen=True)
class Moment:
    """How far the work is.

    Attributes:
        finished: results that are there or have failed, by all processes.
        total: of them.
        name: of the picture that is worked on.
        part: of it that is done, in [0, 1].
        said: what became of it, in a line; empty before that, and if it was done before.
    """

    finished: int
    total: int
    name: str
    part: float
    said: str = ""


@dataclass(frozen=True)
class Summary:
    """What became of all jobs.

    Attributes:
        made: by all processes that were at work together.
        before: results that were there.
        failed: names of pictures, and why.
        unfinished: what is left if the work was stopped.
    """

    made: int
    before: int
    failed: list[tuple[str, str]]
    unfinished: int


class Bulk:
    """Works through jobs, together with all processes that have the same folder of results.

    What failed is left behind, and tried again when no process is at work any more and a new one
    begins. A process ends when everything is finished, so that it can take up what others, killed
    meanwhile, had begun.

    Args:
        jobs: to work on.
        method: how.
        variants: sheets to write of them.
        folder: of the results, where ledger and locks are kept; None for a single file, which is
            known by the settings recorded in it.
        report: called with every change.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        method: Method,
        folder: Path | None,
        *,
        variants: Sequence[Variants] = (),
        report: Callable[[Moment], None] | None = None,
    ) -> None:
        self.jobs = jobs
        self.method = method
        self.folder = folder
        self.variants = variants
        self.report = report
        self._before: set[str] = set()  # keys of results that were there
        self._fingerprints: dict[int, str] = {}
        self.ledger = Ledger(self._hidden("jsonl"))

    def run(self) -> Summary:
        """Work until all jobs are finished.

        Raises:
            NothingCanBeWrittenError: if the disk is full; what was made is kept.
            OutputError: if ledger, locks or a sheet of variants cannot be written.
        """
        with self._among_others() as claims:
            waiting = list(self.jobs)
            while waiting:
                waiting = [job for job in waiting if not self._settle(job, claims)]
                if waiting:
                    time.sleep(WAIT_S)
                    self.ledger.refresh()
                    self._tell(waiting[0], 0.0)
            for each in self.variants:
                self._show(each, claims)
        return self.summary()

    def summary(self) -> Summary:
        """What has become of the jobs so far."""
        ends = [self.ledger.now.get(self._wanted(job), {}) for job in self.jobs]
        events = [end.get("event") for end in ends]
        return Summary(
            made=events.count("made"),
            before=len(self._before) + events.count("found"),
            failed=[(end["name"], end["reason"]) for end in ends if end.get("event") == "failed"],
            unfinished=sum(not self._is_settled(job) for job in self.jobs),
        )

    def _is_settled(self, job: Job) -> bool:
        if job.key in self._before:
            return True
        end = self.ledger.now.get(self._wanted(job))
        return end is not None and (end["event"] == "failed" or not _lacks_sheet(job))

    def _hidden(self, suffix: str) -> Path | None:
        name = f".cascade-{self.method.command}.{suffix}"
        return None if self.folder is None else self.folder / name

    @contextmanager
    def _among_others(self) -> Iterator[Claims]:
        claims = Claims(self._hidden("lock"))
        try:
            if claims.join():
                self._sweep()
                self.ledger.start()
                claims.let_in()
            self.ledger.refresh()
            yield claims
            if claims.leave():
                self._sweep()
        finally:
            claims.close()
            with suppress(OutputError):  # what others have made until now, for the last words
                self.ledger.refresh()

    def _sweep(self) -> None:
        """Remove what killed processes left half-written, while nobody else writes."""
        names: dict[Path, set[str]] = {}
        for job in self.jobs:
            for path in (job.output, job.sheet):
                if path is not None:
                    names.setdefault(path.parent, set()).add(path.name)
        for each in self.variants:
            names.setdefault(each.sheet.parent, set()).add(each.sheet.name)
        for folder, written in names.items():
            remove_leftovers(folder, written)

    # ---- one job -------------------------------------------------------------------------------

    def _settle(self, job: Job, claims: Claims) -> bool:
        """Finish a job, unless another process is at it."""
        if self._is_settled(job):
            return True
        if not claims.take(job.key):
            return False
        try:
            self.ledger.refresh()
            if not self._is_settled(job):  # by another process, a moment ago
                self._tell(job, 0.0)
                self._tell(job, 0.0, self._try(job))
        finally:
            claims.give_back(job.key)
        return True

    def _try(self, job: Job) -> str:
        """Finish a job, well or not, and say what became of it."""
        name = job.source.name
        try:
            return self._finish(job)
        except NothingCanBeWrittenError:
            raise
        except CascadeError as error:
            reason = str(error)
        except MemoryError:
            reason = "not enough memory."
        except Exception as error:  # one odd picture does not end the night's work
            reason = f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.removeprefix(f"{name}: ").split())
        self._before.discard(job.key)
        self._add("failed", job, {"name": name, "reason": reason})
        return f"failed: {name}: {reason}"

    def _finish(self, job: Job) -> str:
        said = "" if self._is_there(job) else self._make(job)
        if job.sheet is not None and _is_older(job.sheet, job.output):
            write_comparison(
                job.source.read(),
                read_picture(job.output),
                job.sheet,
                before=self.method.before,
                caption=f"{self.method.settings['model']}, seed {job.seed}",
            )
        return said

    def _make(self, job: Job) -> str:
        begun = time.monotonic()
        source, settings = described(job.source), self._settings(job)
        picture = job.source.read()
        self._check_can_be_written(picture, job.output)
        result = self.method.make(
            picture, job.seed, lambda done, total: self._tell(job, done / total)
        )
        told = {**settings, INPUT: source["sha256"]}
        try:
            write_picture(result, job.output, settings=told, metadata=self.method.metadata)
        except OutputError as error:
            if _fits_nothing_more(error, result, job.output.parent):
                raise NothingCanBeWrittenError(str(error)) from error
            raise
        took = time.monotonic() - begun
        self._add("made", job, {**source, "seconds": round(took, 3), "settings": settings})
        return f"{self.method.done}: {job.source.name} -> {job.output} ({took:.1f} s)"

    def _check_can_be_written(self, picture: Picture, path: Path) -> None:
        """Check before the long work that the format can hold its result."""
        height, width = (round(side * self.method.factor) for side in picture.size)
        has_alpha = picture.alpha is not None
        check_format(path, size=(height, width), bits=picture.bits, has_alpha=has_alpha)
        if self.method.metadata:
            check_exif(path, picture.exif)

    def _show(self, variants: Variants, claims: Claims) -> None:
        """Write a sheet of variants, unless another process does or they are not all there."""
        ends = [self.ledger.now.get(self._wanted(job), {}).get("event") for job in variants.jobs]
        stale = any(_is_older(variants.sheet, job.output) for job in variants.jobs)
        if "failed" in ends or not stale or not claims.take(str(variants.sheet)):
            return
        made = [(f"seed {job.seed}", read_picture(job.output)) for job in variants.jobs]
        write_variants(made, variants.sheet)
        claims.give_back(str(variants.sheet))

    def _settings(self, job: Job) -> dict[str, Any]:
        return {**self.method.settings, "seed": job.seed}

    def _wanted(self, job: Job) -> tuple[str, str]:
        """What the ledger knows the job by."""
        if job.seed not in self._fingerprints:
            self._fingerprints[job.seed] = fingerprint(self._settings(job))
        return job.key, self._fingerprints[job.seed]

    def _add(self, event: Event, job: Job, values: Mapping[str, Any]) -> None:
        self.ledger.add(event, *self._wanted(job), values)

    def _is_there(self, job: Job) -> bool:
        """Whether the result is there already.

        Raises:
            OutputError: if something else is, which may not be replaced.
        """
        if not os.path.lexists(job.output):
            return False
        if job.output.is_dir():
            raise OutputError(f"{job.output} is a folder.")
        settings, how = self._settings(job), "by something else"
        line = self.ledger.made.get(job.key)
        if line is not None:
            how = difference(line, settings, job.source)
            if not how:
                if self._wanted(job) not in self.ledger.now:  # made now, but for its sheet
                    self._before.add(job.key)
                return True
        line = recorded(job.output)
        if line is not None:
            how = difference(line, settings, job.source)
            if not how:
                self._add("found", job, {**described(job.source), "settings": settings})
                return True
        if not self.method.overwrite:
            raise OutputError(
                f"{job.output} is there already, and was made {how}; --overwrite replaces it."
            )
        return False

    def _tell(self, job: Job, part: float, said: str = "") -> None:
        if self.report is not None:
            finished = min(len(self._before) + len(self.ledger.now), len(self.jobs))
            self.report(Moment(finished, len(self.jobs), job.source.name, part, said))


def _fits_nothing_more(error: OutputError, picture: Picture, folder: Path) -> bool:
    """Whether all further pictures would fail as this one did."""
    if isinstance(error.__cause__, OSError):
        return error.__cause__.errno in DISK_ERRORS
    copies = 2  # of pixels and of the whole file, while it is written
    size_bytes = copies * picture.colour.nbytes
    return folder.is_dir() and shutil.disk_usage(folder).free < size_bytes


def _lacks_sheet(job: Job) -> bool:
    """Whether a before/after sheet is wanted and missing, or of an earlier result."""
    return job.sheet is not None and _is_older(job.sheet, job.output)


def _is_older(path: Path, than: Path) -> bool:
    """Whether a file is missing, or older than another."""
    try:
        return path.stat().st_mtime_ns < than.stat().st_mtime_ns
    except OSError:
        return True
