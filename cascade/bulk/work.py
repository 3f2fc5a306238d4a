"""The loop over many jobs, which several processes share and which continues where it stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.bulk.claims import Claims
from cascade.bulk.inputs import InputListing
from cascade.bulk.jobs import Job, VariantSheet
from cascade.bulk.ledger import Event, Ledger
from cascade.bulk.making import (
    DiskError,
    Method,
    lacks_sheet,
    lacks_variants,
    make_result,
    write_sheet,
    write_variant_sheet,
)
from cascade.bulk.outcome import Outcome
from cascade.bulk.records import (
    NotAResultError,
    difference,
    is_unchanged,
    ledger_values,
    record_of,
    settings_id,
)
from cascade.errors import CascadeError, OutputError
from cascade.saving.atomic import remove_leftovers

WAIT_S = 0.2  # between looks at the jobs that other processes have claimed


@dataclass(frozen=True)
class ProgressUpdate:
    """The progress of the work.

    Attributes:
        finished: number of jobs that are done or have failed, in all processes.
        total: number of jobs.
        name: name of the current picture.
        part: share of the current picture that is done, in [0, 1].
        message: the outcome of the current picture in one line; empty while it is in progress, and
            if its result existed before.
    """

    finished: int
    total: int
    name: str
    part: float
    message: str = ""


class Bulk:
    """Does all jobs, together with every process that works on the same folder of results.

    A failed job is not tried again while any of these processes is at work. A process ends when all
    jobs are finished, so that it can take over the jobs of a killed one.

    Args:
        jobs: the jobs to do.
        method: how to make each result.
        folder: folder of the results, with ledger and locks; None for a single result in a file of
            its own, which no other process shares.
        variants: sheets to write when their jobs are done.
        inputs: pictures, unreadable and skipped files of the inputs, which the outcome counts.
        on_progress: called with every change.

    Raises:
        OutputError: if the ledger cannot be written.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        method: Method,
        folder: Path | None,
        *,
        variants: Sequence[VariantSheet] = (),
        inputs: InputListing | None = None,
        on_progress: Callable[[ProgressUpdate], None] | None = None,
    ) -> None:
        self.jobs = jobs
        self.method = method
        self.folder = folder
        self.variants = variants
        self.inputs = inputs or InputListing()
        self.on_progress = on_progress
        self._done_before: set[str] = set()  # keys
        self._settings_ids = {job.seed: settings_id(method.settings_of(job)) for job in jobs}
        self.ledger = Ledger(self._hidden_file("jsonl"))

    def run(self) -> None:
        """Work until all jobs are finished.

        Raises:
            DiskError: if the disk is full; results made so far are kept.
            OutputError: if ledger, locks or a sheet of variants cannot be written.
        """
        with self._beside_other_processes() as claims:
            waiting = list(self.jobs)
            while waiting:
                waiting = [job for job in waiting if not self._settle(job, claims)]
                if waiting:
                    time.sleep(WAIT_S)
                    self.ledger.refresh()
                    self._notify(waiting[0], 0.0)
            for sheet in self.variants:
                self._show_variants(sheet, claims)

    def outcome(self) -> Outcome:
        """Count the jobs by what has become of them so far."""
        lines = [self.ledger.this_round.get(self._id(job), {}) for job in self.jobs]
        events = [line.get("event") for line in lines]
        failed = [(line["name"], line["reason"]) for line in lines if line.get("event") == "failed"]
        return Outcome(
            new=events.count("made"),
            done_before=len(self._done_before) + events.count("verified"),
            failed=[*self.inputs.unreadable, *failed],
            unfinished=sum(not self._is_settled(job) for job in self.jobs),
            skipped=len(self.inputs.skipped),
            lost=[(what, why) for line in lines for what, why in line.get("lost", ())],
        )

    def _hidden_file(self, suffix: str) -> Path | None:
        name = f".cascade-{self.method.command}.{suffix}"
        return None if self.folder is None else self.folder / name

    @contextmanager
    def _beside_other_processes(self) -> Iterator[Claims]:
        claims = Claims(self._hidden_file("lock"))
        try:
            if claims.join():
                self._remove_leftovers()
                self.ledger.start_round()
                claims.let_in()
            self.ledger.refresh()
            yield claims
            if claims.leave():
                self._remove_leftovers()
        finally:
            claims.close()
            with suppress(OutputError):  # so that the outcome counts the results of others too
                self.ledger.refresh()

    def _remove_leftovers(self) -> None:
        """Remove half-written files of killed processes, while no other process is at work."""
        paths = [job.output for job in self.jobs]
        paths += [job.sheet for job in self.jobs if job.sheet is not None]
        paths += [sheet.path for sheet in self.variants]
        names: dict[Path, set[str]] = {}
        for path in paths:
            names.setdefault(path.parent, set()).add(path.name)
        for folder, outputs in names.items():
            remove_leftovers(folder, outputs)

    # ---- one job --------------------------------------------------------------------------------

    def _is_settled(self, job: Job) -> bool:
        """Whether nothing is left to do for a job, as far as this process knows."""
        if job.key in self._done_before:
            return True
        line = self.ledger.this_round.get(self._id(job))
        return line is not None and (line["event"] == "failed" or not lacks_sheet(job))

    def _settle(self, job: Job, claims: Claims) -> bool:
        """Finish a job; returns whether that succeeded: False if another process works on it."""
        if self._is_settled(job):
            return True
        if self._is_known_to_be_done(job) and not lacks_sheet(job):
            self._done_before.add(job.key)
            self._notify(job, 0.0)
            return True
        if not claims.take(job.key):
            return False
        try:
            self.ledger.refresh()
            if not self._is_settled(job):  # another process may have finished it by now
                self._notify(job, 0.0)
                self._notify(job, 0.0, self._try(job))
        finally:
            claims.give_back(job.key)
        return True

    def _try(self, job: Job) -> str:
        """Make what is missing of a job, or note why it failed; returns a message."""
        name = job.source.name
        try:
            return self._finish(job)
        except DiskError:
            raise
        except CascadeError as error:
            reason = str(error)
        except MemoryError:
            reason = "not enough memory."
        except Exception as error:  # one odd picture must not end the whole run
            reason = f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.removeprefix(f"{name}: ").split())
        self._done_before.discard(job.key)
        self._note("failed", job, {"name": name, "reason": reason})
        return f"failed: {name}: {reason}"

    def _finish(self, job: Job) -> str:
        message = "" if self._is_done(job) else self._make(job)
        if lacks_sheet(job):
            write_sheet(job, self.method)
        return message

    def _make(self, job: Job) -> str:
        begin, stamp = time.monotonic(), job.source.stamp()
        record, losses = make_result(
            job, self.method, lambda done, total: self._notify(job, done / total)
        )
        seconds = time.monotonic() - begin
        values = ledger_values(job, record, stamp)
        values |= {"seconds": round(seconds, 3), "lost": [[each.what, each.why] for each in losses]}
        self._note("made", job, values)
        name = job.source.name
        return f"{self.method.description}: {name} -> {job.output} ({seconds:.1f} s)"

    def _is_known_to_be_done(self, job: Job) -> bool:
        """Whether the ledger lists this input and result as they are on disk; opens neither."""
        line = self.ledger.results.get(job.key, {})
        made_now = self._id(job) in self.ledger.this_round
        same_settings = line.get("settings_id") == self._settings_ids[job.seed]
        return same_settings and not made_now and is_unchanged(job, line)

    def _is_done(self, job: Job) -> bool:
        """Whether the result of a job exists and is right.

        Raises:
            OutputError: if another file has its name and may not be replaced.
        """
        if not os.path.lexists(job.output):
            return False
        if job.output.is_dir():
            raise OutputError(f"{job.output} is a folder; move it away.")
        fault = self._check_result(job)
        if fault and not self.method.overwrite:
            raise OutputError(
                f"{job.output} already exists and {fault}; move it away or allow overwriting."
            )
        return not fault

    def _check_result(self, job: Job) -> str:
        """Say what is wrong with the file that has a result's name; note the job if it is right."""
        line, stamp = self.ledger.results.get(job.key), job.source.stamp()
        try:
            record = record_of(job.output, line)
        except NotAResultError as error:
            return str(error)
        fault = difference(record, self.method.settings_of(job), job.source)
        if fault or self._id(job) in self.ledger.this_round:  # made now, but its sheet is missing
            return fault
        if line is not None and is_unchanged(job, line):
            self._done_before.add(job.key)
        else:
            values = ledger_values(job, record, stamp)
            self._note("verified", job, values)
        return ""

    def _show_variants(self, sheet: VariantSheet, claims: Claims) -> None:
        """Write a sheet of variants, unless another process does or one of its jobs failed."""
        lines = [self.ledger.this_round.get(self._id(job), {}) for job in sheet.jobs]
        failed = any(line.get("event") == "failed" for line in lines)
        if failed or not lacks_variants(sheet) or not claims.take(str(sheet.path)):
            return
        write_variant_sheet(sheet)
        claims.give_back(str(sheet.path))

    def _id(self, job: Job) -> tuple[str, str]:
        """Key and settings id, by which the ledger knows a job."""
        return job.key, self._settings_ids[job.seed]

    def _note(self, event: Event, job: Job, values: Mapping[str, Any]) -> None:
        self.ledger.add(event, *self._id(job), values)

    def _notify(self, job: Job, part: float, message: str = "") -> None:
        if self.on_progress is not None:
            finished = min(len(self._done_before) + len(self.ledger.this_round), len(self.jobs))
            name = job.source.name
            self.on_progress(ProgressUpdate(finished, len(self.jobs), name, part, message))
