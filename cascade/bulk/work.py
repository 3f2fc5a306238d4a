"""The loop over many jobs, which several processes share and which continues where it stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cascade.bulk.claims import Claims
from cascade.bulk.doubt_files import lacks_doubt
from cascade.bulk.inputs import InputListing
from cascade.bulk.jobs import Job, Plan, VariantSheet
from cascade.bulk.ledger import Event, Ledger, ledger_file
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
from cascade.bulk.progress import Note, ProgressUpdate
from cascade.bulk.records import (
    NotAResultError,
    difference,
    is_unchanged,
    ledger_values,
    record_of,
    settings_id,
)
from cascade.bulk.reports import Reports
from cascade.bulk.slider_page import check_page, page_file, write_page
from cascade.bulk.together import Drawn, draw_together, groups
from cascade.errors import CascadeError, OutputError
from cascade.saving.atomic import remove_leftovers

WAIT_S = 0.2  # between looks at the jobs that other processes have claimed


class Bulk:
    """Does all jobs, together with every process that works on the same folder of results.

    A failed job is not tried again while any of these processes is at work. A process ends when all
    jobs are finished, so that it can take over the jobs of a killed one.

    Args:
        plan: the results and sheets to make.
        method: how to make each result.
        folder: folder of the results, with ledger and locks; None for a single result in a file of
            its own, which no other process shares.
        inputs: pictures, unreadable and other files of the inputs, which the outcome counts.
        notes: what the user should know before the work begins.
        on_progress: called with every change.

    Raises:
        OutputError: if the ledger cannot be written.
    """

    def __init__(
        self,
        plan: Plan,
        method: Method,
        folder: Path | None,
        *,
        inputs: InputListing | None = None,
        notes: Sequence[Note] = (),
        on_progress: Callable[[ProgressUpdate], None] | None = None,
    ) -> None:
        self.plan = plan
        self.jobs = plan.jobs
        self.method = method
        self.inputs = inputs or InputListing()
        self.notes = notes
        self.reports = Reports(len(plan.jobs), method, on_progress)
        self._reported: set[tuple[str, str]] = set()  # ids of the jobs whose failure was reported
        self._done_before: set[str] = set()  # keys
        self._settings_ids = {
            (job.seed, job.pages): settings_id(method.settings_of(job)) for job in plan.jobs
        }
        self.ledger = Ledger(None if folder is None else ledger_file(folder, method.command))

    def run(self) -> None:
        """Work until all jobs are finished.

        Raises:
            DiskError: if the disk is full; results made so far are kept.
            OutputError: if ledger, locks, a sheet of variants or the page cannot be written.
        """
        if self.plan.page is not None:
            check_page(self.plan.page)
        for note in self.notes:
            self.reports.note(note)
        for name, reason in self.inputs.unreadable:
            self.reports.failure(name, reason)
        try:
            with self._beside_other_processes() as claims, self._page_at_the_end():
                self.reports.estimate([job for job in self.jobs if not self._is_finished(job)])
                self._work(claims)
                for sheet in self.plan.sheets:
                    self._show_variants(sheet, claims)
        finally:
            self._report_failures_of_others()

    def _work(self, claims: Claims) -> None:
        waiting = list(self.jobs)
        while waiting:
            parts = groups(waiting, self.method, self._is_finished)
            waiting = [job for part in parts for job in self._settle(part, claims)]
            if waiting:
                time.sleep(WAIT_S)
                self.ledger.refresh()
                self._progress(waiting[0], 0.0)

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
            left_out=len(self.inputs.left_out),
            lost=[(what, why) for line in lines for what, why in line.get("lost", ())],
        )

    @contextmanager
    def _beside_other_processes(self) -> Iterator[Claims]:
        file = self.ledger.file
        claims = Claims(None if file is None else file.with_suffix(".lock"))
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

    @contextmanager
    def _page_at_the_end(self) -> Iterator[None]:
        """Write the page of all sheets after the work, or of those made so far if it stops."""
        try:
            yield
        except BaseException:
            with suppress(OutputError):  # what stopped the work says more
                self._write_page()
            raise
        self._write_page()

    def _write_page(self) -> None:
        if self.plan.page is not None:
            write_page(self.plan.page, self.method.command)

    def _report_failures_of_others(self) -> None:
        for job in self.jobs:
            line = self.ledger.this_round.get(self._id(job), {})
            if line.get("event") == "failed" and self._id(job) not in self._reported:
                self.reports.failure(line["name"], line["reason"])

    def _remove_leftovers(self) -> None:
        """Remove half-written files of killed processes, while no other process is at work."""
        paths = [path for path, _ in self.plan.files()]
        paths += [] if self.plan.page is None else [page_file(self.plan.page)]
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

    def _is_finished(self, job: Job) -> bool:
        """Whether a job is settled, or was done before by the ledger; opens no file."""
        if self._is_settled(job):
            return True
        if not self._is_known_to_be_done(job) or lacks_sheet(job) or lacks_doubt(job):
            return False
        self._done_before.add(job.key)
        return True

    def _settle(self, jobs: Sequence[Job], claims: Claims) -> list[Job]:
        """Finish jobs that can be drawn together; returns those that other processes work on."""
        own: list[Job] = []
        of_others: list[Job] = []
        try:
            for job in jobs:
                if self._is_finished(job):
                    self._count(job)
                elif claims.take(job.key):
                    own.append(job)
                else:
                    of_others.append(job)
            self._make_all(own)
        finally:
            for job in own:
                claims.give_back(job.key)
        return of_others

    def _make_all(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        self.ledger.refresh()
        jobs = [job for job in jobs if not self._is_settled(job)]  # others may have finished some
        drawn = self._draw_together(jobs)
        for job in jobs:
            self._progress(job, 0.0)
            message = self._try(job, drawn)
            self._count(job)
            self._progress(job, 0.0, message)
            self.reports.time_left()

    def _draw_together(self, jobs: Sequence[Job]) -> Drawn:
        missing = [job for job in jobs if not os.path.lexists(job.output)]
        if len(missing) < 2:
            return Drawn()
        return draw_together(
            missing, self.method, lambda done, total: self._progress(missing[0], done / total)
        )

    def _count(self, job: Job) -> None:
        line = self.ledger.this_round.get(self._id(job), {})
        self.reports.settled(job, made=line.get("event") == "made")

    def _try(self, job: Job, drawn: Drawn) -> str:
        """Make what is missing of a job and return a message, or report why that failed."""
        name = job.source.name
        try:
            return self._finish(job, drawn)
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
        self._reported.add(self._id(job))
        self.reports.failure(name, reason)
        return ""

    def _finish(self, job: Job, drawn: Drawn) -> str:
        message = "" if self._is_done(job) else self._make(job, drawn)
        if lacks_sheet(job):
            write_sheet(job, self.method)
        return message

    def _make(self, job: Job, drawn: Drawn) -> str:
        begin, stamp = time.monotonic(), job.source.stamp()
        record, losses = make_result(
            job,
            self.method,
            lambda part, page: self._progress(job, part, page=page),
            lambda remark: self.reports.remark(job, remark),
            drawn.results,
            lambda record, file: self.ledger.add_written(
                job.key, ledger_values(job, record, stamp, file)
            ),
        )
        seconds = time.monotonic() - begin + drawn.seconds
        values = ledger_values(job, record, stamp)
        values |= {"seconds": round(seconds, 3), "lost": [[each.what, each.why] for each in losses]}
        self._note("made", job, values)
        name = job.source.name
        return f"{self.method.description}: {name} -> {job.output} ({seconds:.1f} s)"

    def _is_known_to_be_done(self, job: Job) -> bool:
        """Whether the ledger lists this input and result as they are on disk; opens neither."""
        line = self.ledger.results.get(job.key, {})
        made_now = self._id(job) in self.ledger.this_round
        same_settings = line.get("settings_id") == self._settings_ids[job.seed, job.pages]
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
        return not fault and not lacks_doubt(job)

    def _check_result(self, job: Job) -> str:
        """Say what is wrong with the file that has a result's name; note the job if it is right."""
        line, stamp = self.ledger.results.get(job.key), job.source.stamp()
        try:
            record = record_of(job.output, line)
        except NotAResultError as error:
            return str(error)
        fault = difference(record, self.method.settings_of(job), job.source)
        made_now = self._id(job) in self.ledger.this_round  # but its sheet is missing
        if fault or made_now or lacks_doubt(job):
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
        return job.key, self._settings_ids[job.seed, job.pages]

    def _note(self, event: Event, job: Job, values: Mapping[str, Any]) -> None:
        self.ledger.add(event, *self._id(job), values)

    def _finished(self) -> int:
        """The number of jobs that are done or have failed, in all processes."""
        return min(len(self._done_before) + len(self.ledger.this_round), len(self.jobs))

    def _progress(self, job: Job, part: float, message: str = "", page: str = "") -> None:
        self.reports.progress(job, self._finished(), part, message, page)
