"""The loop over many jobs, which several processes share and which continues where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cascade.bulk.claims import Claims
from cascade.bulk.destination import Destination
from cascade.bulk.inputs import InputListing
from cascade.bulk.jobs import Job, Plan, VariantSheet
from cascade.bulk.ledger import Ledger, ledger_file
from cascade.bulk.leftovers import remove_leftovers_of
from cascade.bulk.making import DiskError, lacks_variants, write_variant_sheet
from cascade.bulk.method import Method
from cascade.bulk.one_job import Making, one_line
from cascade.bulk.outcome import Outcome
from cascade.bulk.progress import Note, ProgressUpdate
from cascade.bulk.rehearsal import rehearse
from cascade.bulk.reports import Reports
from cascade.bulk.shards import Packing, ShardPlan, remove_folder
from cascade.bulk.sheets import check_sheet
from cascade.bulk.slider_page import check_page, write_page
from cascade.bulk.standing import LOCAL, WITHOUT_RESULT, Standing
from cascade.bulk.together import groups
from cascade.errors import CascadeError, OutputError

WAIT_S = 0.2  # between looks at the jobs that other processes have claimed
NO_CLAIMS = Claims(None)  # for the jobs of a shard, which is claimed as a whole


class Bulk:
    """Does all jobs, together with every process that works on the same folder of results.

    A failed job is not tried again while any of these processes is at work. A process ends when all
    jobs are finished, so that it can take over the jobs of a killed one.

    Args:
        plan: the results and sheets to make.
        method: how to make each result.
        folder: folder of the results, with ledger and locks; None for a single result in a file of
            its own, which no other process shares.
        destination: where the results go when they are complete.
        inputs: pictures, unreadable and other files of the inputs, which the outcome counts.
        choices: what decides names and number of the results besides the method's settings, which
            the ledger of a part notes.
        notes: what the user should know before the work begins.
        on_progress: called with every change.
        dry_run: whether to write nothing, for `rehearse`.

    Raises:
        OutputError: if the ledger cannot be written.
    """

    def __init__(
        self,
        plan: Plan,
        method: Method,
        folder: Path | None,
        *,
        destination: Destination = LOCAL,
        inputs: InputListing | None = None,
        choices: Mapping[str, Any] | None = None,
        notes: Sequence[Note] = (),
        on_progress: Callable[[ProgressUpdate], None] | None = None,
        dry_run: bool = False,
    ) -> None:
        self.plan = plan
        self.jobs = plan.jobs
        self.method = method
        self.inputs = inputs or InputListing()
        self.notes = notes
        self._choices = choices or {}
        self._failed_sheets: list[tuple[str, str]] = []  # name and reason of each
        self.reports = Reports(len(plan.jobs), method, on_progress)
        part = None if self.inputs.slice is None else self.inputs.slice.part
        file = None if folder is None else ledger_file(folder, method.command, part)
        self.ledger = Ledger.in_memory(file) if dry_run else Ledger(file)
        self._destination = destination
        self._standing = Standing(plan.jobs, method, self.ledger, destination)
        self._packing = Packing(method, self.ledger, destination)
        self._making = Making(method, self._standing, self.ledger, self.reports)

    def rehearse(self, on_line: Callable[[str], None] = lambda line: None) -> Outcome:
        """Tell what `run` would do, of a dry run; nothing is drawn or written.

        Args:
            on_line: called with a line about each result that would be made or is there.

        Returns:
            The counts, in which `new` are the results to make.

        Raises:
            OutputError: if another file has the name of the page or of a sheet of variants.
        """
        self._check_beside()
        for note in self.notes:
            self.reports.note(note)
        for name, reason in self.inputs.unreadable:
            self.reports.failure(name, reason)
        self.ledger.start_round()
        outcome = rehearse(
            self.plan, self.method, self._standing, self._packing, self.reports, on_line
        )
        failed = [*self.inputs.unreadable, *outcome.failed]
        return replace(outcome, failed=failed, left_out=len(self.inputs.left_out))

    def _check_beside(self) -> None:
        """Check that what is written beside the results replaces no file of somebody else."""
        if self.plan.page is not None:
            check_page(self.plan.page)
        for sheet in self.plan.sheets:
            check_sheet(sheet.path)

    def run(self) -> None:
        """Work until all jobs are finished.

        Raises:
            DiskError: if the disk is full; results made so far are kept.
            OutputError: if ledger, locks or the page cannot be written, or another file has the
                name of the page or of a sheet of variants.
        """
        self._check_beside()
        for note in self.notes:
            self.reports.note(note)
        for name, reason in self.inputs.unreadable:
            self.reports.failure(name, reason)
        try:
            with self._beside_other_processes() as claims, self._page_at_the_end():
                shards = self._unpacked(claims)
                self.reports.estimate(
                    [job for job in self.jobs if not self._standing.is_finished(job)]
                )
                self._work(claims)
                self._work_on_shards(shards, claims)
                for sheet in self.plan.sheets:
                    self._show_variants(sheet, claims)
        finally:
            self._report_failures_of_others()
            self.reports.further_failures()

    def _work(self, claims: Claims) -> None:
        waiting = [job for job in self.jobs if not job.shard]
        while waiting:
            parts = groups(waiting, self.method, self._standing.is_finished)
            waiting = [job for part in parts for job in self._settle(part, claims)]
            if waiting:
                time.sleep(WAIT_S)
                self.ledger.refresh()
                self._making.progress(waiting[0], 0.0)

    def _work_on_shards(self, shards: Sequence[ShardPlan], claims: Claims) -> None:
        waiting = list(shards)
        while waiting:
            waiting = [shard for shard in waiting if not self._finish_shard(shard, claims)]
            if waiting:
                time.sleep(WAIT_S)
                self.ledger.refresh()
                self._making.progress(waiting[0].jobs[0], 0.0)

    def _finish_shard(self, shard: ShardPlan, claims: Claims) -> bool:
        """Finish and pack a shard, unless another process works on it."""
        if not claims.take(shard.key):
            return False
        try:
            self.ledger.refresh()
            with self._shard_failures(shard):
                if self._is_packed(shard):  # by another process, which may have been killed then
                    remove_folder(shard)
                elif not self._packing.failure_of(shard):
                    self._make_shard(shard)
            return True
        finally:
            claims.give_back(shard.key)

    def _make_shard(self, shard: ShardPlan) -> None:
        for jobs in groups(shard.jobs, self.method, self._standing.is_finished):
            self._settle(jobs, NO_CLAIMS)
        failed = [job for job in shard.jobs if self._standing.has_failed(job)]
        reasons = {job.key: self._standing.line(job)["reason"] for job in failed}
        self._packing.pack(shard, reasons)

    @contextmanager
    def _shard_failures(self, shard: ShardPlan) -> Iterator[None]:
        """Let all pictures of a shard fail for what is wrong with the shard as a whole."""
        try:
            yield
        except DiskError:
            raise
        except (CascadeError, OSError) as error:
            name = shard.source.name
            reason = one_line(error, name)
            self._packing.note_failure(shard, reason)
            for job in shard.jobs:
                if not self._standing.has_failed(job):
                    values = {"name": job.source.name, "reason": reason}
                    self._standing.note("failed", job, values)
        if self._packing.failure_of(shard):
            self._report_shard(shard)

    def _report_shard(self, shard: ShardPlan) -> None:
        """Report once that a shard failed as a whole, and none of its pictures."""
        line = self._packing.failure_of(shard)
        if (shard.key, line["settings_id"]) not in self._making.reported:
            self.reports.failure(line["name"], line["reason"])
        self._making.reported.add((shard.key, line["settings_id"]))
        self._making.reported |= {self._standing.id(job) for job in shard.jobs}
        for job in shard.jobs:
            self._standing.done_before.discard(job.key)
            self._making.count(job)

    def _unpacked(self, claims: Claims) -> list[ShardPlan]:
        """The shards to work on; removes the folders that killed processes left of the others."""
        shards = []
        for shard in self.plan.shards:
            is_packed = False
            with self._shard_failures(shard):
                is_packed = self._is_packed(shard)
            if is_packed and shard.folder.exists() and claims.take(shard.key):
                remove_folder(shard)
                claims.give_back(shard.key)
            if not is_packed and not self._packing.failure_of(shard):
                shards.append(shard)
        return shards

    def _is_packed(self, shard: ShardPlan) -> bool:
        """Whether a shard of results is complete; its jobs are then settled, failed ones too."""
        failed = self._packing.failures_of(shard)
        if failed is None:
            return False
        for job in shard.jobs:
            if self._standing.line(job):
                pass  # made or failed in this round
            elif job.key in failed:
                values = {"name": job.source.name, "reason": failed[job.key]}
                self._standing.note("failed", job, values)
            else:
                self._standing.done_before.add(job.key)
            self._making.count(job)
        return True

    def outcome(self) -> Outcome:
        """Count the jobs by what has become of them so far."""
        lines = [self._standing.line(job) for job in self.jobs]
        events = [line.get("event") for line in lines]
        failed, unsuitable = (
            [(line["name"], line["reason"]) for line in lines if line.get("event") == event]
            for event in WITHOUT_RESULT
        )
        return Outcome(
            new=events.count("made"),
            done_before=len(self._standing.done_before) + events.count("verified"),
            failed=[*self.inputs.unreadable, *failed, *self._failed_sheets],
            unfinished=sum(not self._standing.is_settled(job) for job in self.jobs),
            left_out=len(self.inputs.left_out),
            unsuitable=list(dict.fromkeys(unsuitable)),  # each picture once, whatever its seeds
            lost=[(what, why) for line in lines for what, why in line.get("lost", ())],
        )

    @contextmanager
    def _beside_other_processes(self) -> Iterator[Claims]:
        file = self.ledger.file
        claims = Claims(None if file is None else file.with_suffix(".lock"))
        try:
            if claims.join():
                remove_leftovers_of(self.plan, is_part=self.inputs.slice is not None)
                self._start_round()
                # which also tells whether results can be written
                self._destination.keep_ledger(self.ledger.file, now=True)
                claims.let_in()
            self.ledger.refresh()
            yield claims
            if claims.leave():
                remove_leftovers_of(self.plan, is_part=self.inputs.slice is not None)
            self._destination.keep_ledger(self.ledger.file, now=True)
        except BaseException:
            with suppress(OutputError):  # what stopped the work says more
                self._destination.keep_ledger(self.ledger.file, now=True)
            raise
        finally:
            claims.close()
            with suppress(OutputError):  # so that the outcome counts the results of others too
                self.ledger.refresh()

    def _start_round(self) -> None:
        """Begin a round; the ledger of a part also notes all that the part has to do."""
        if self.inputs.slice is None:
            self.ledger.start_round()
            return
        settings = {**self.method.settings, **self._choices}
        planned = [(*self._standing.id(job), job.source.name) for job in self.jobs if not job.shard]
        planned += [
            (shard.key, self._packing.settings_id(shard), shard.source.name)
            for shard in self.plan.shards
        ]
        self.ledger.start_round(self.inputs.slice.head(settings, self.inputs.unreadable), planned)

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
        for shard in self.plan.shards:
            if self._packing.failure_of(shard):
                self._report_shard(shard)
        for job in self.jobs:
            line = self._standing.line(job)
            if (
                line.get("event") == "failed"
                and self._standing.id(job) not in self._making.reported
            ):
                self.reports.failure(line["name"], line["reason"])

    def _settle(self, jobs: Sequence[Job], claims: Claims) -> list[Job]:
        """Finish jobs that can be drawn together; returns those that other processes work on."""
        own: list[Job] = []
        of_others: list[Job] = []
        try:
            for job in jobs:
                if self._standing.is_finished(job):
                    self._making.count(job)
                elif claims.take(job.key):
                    own.append(job)
                else:
                    of_others.append(job)
            self._making.make(own)
        finally:
            for job in own:
                claims.give_back(job.key)
        return of_others

    def _show_variants(self, sheet: VariantSheet, claims: Claims) -> None:
        """Write a sheet of variants, unless another process does or a job has no result."""
        lines = [self._standing.line(job) for job in sheet.jobs]
        has_gap = any(line.get("event") in WITHOUT_RESULT for line in lines)
        if has_gap or not lacks_variants(sheet) or not claims.take(str(sheet.path)):
            return
        try:
            write_variant_sheet(sheet, self.method)
        except CascadeError as error:  # the other sheets do not depend on it
            name = sheet.path.name
            self._failed_sheets.append((name, one_line(error, name)))
            self.reports.failure(*self._failed_sheets[-1])
        finally:
            claims.give_back(str(sheet.path))
