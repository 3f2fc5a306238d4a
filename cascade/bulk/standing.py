"""What has become of each job, by the ledger and by the files on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from cascade.bulk.destination import Destination, LocalFolder
from cascade.bulk.doubt_files import has_numbers
from cascade.bulk.jobs import Job
from cascade.bulk.ledger import Event, Ledger
from cascade.bulk.making import lacks_sheet
from cascade.bulk.method import Method
from cascade.bulk.records import (
    NotAResultError,
    Record,
    difference,
    is_unchanged,
    ledger_values,
    record_of,
    settings_id,
)
from cascade.errors import OutputError

LOCAL = LocalFolder()
DOUBT_HAS_NUMBERS = "doubt_has_numbers"  # in the ledger, so that the result need not be opened
WITHOUT_RESULT = ("failed", "left_out")  # events


@final
class Standing:
    """What this process knows about the jobs: which are done, which have failed.

    Args:
        jobs: the results to make.
        method: how to make each result.
        ledger: the lines of all processes that share the folder of the results.
        destination: where finished results go.

    Attributes:
        done_before: keys of the jobs whose results existed already.
    """

    def __init__(
        self, jobs: Sequence[Job], method: Method, ledger: Ledger, destination: Destination
    ) -> None:
        self.done_before: set[str] = set()
        self._jobs = jobs
        self._method = method
        self._ledger = ledger
        self._destination = destination
        choices = {(job.seed, job.pages): job for job in jobs}  # few, and hashing takes long
        self._settings_ids = {
            choice: settings_id(method.settings_of(job)) for choice, job in choices.items()
        }

    def destination_of(self, job: Job) -> Destination:
        """Where the result of a job goes: results of a shard stay here until it is packed."""
        return LOCAL if job.shard else self._destination

    def keep_ledger(self) -> None:
        """Keep a recent copy of the ledger with the results."""
        self._destination.keep_ledger(self._ledger.file)

    def has_file(self, job: Job) -> bool:
        """Whether there is a file with the name of the result of a job."""
        return self.destination_of(job).has(job.output)

    def name_of(self, job: Job) -> str:
        """The name of the result of a job in messages."""
        return f"{self._destination.name(job.shard or job.output)}{job.place_in_shard}"

    def id(self, job: Job) -> tuple[str, str]:
        """Key and settings id, by which the ledger knows a job."""
        return job.key, self._settings_ids[job.seed, job.pages]

    def line(self, job: Job) -> dict[str, Any]:
        """The last line about a job in this round; empty if there is none."""
        return self._ledger.this_round.get(self.id(job), {})

    def has_failed(self, job: Job) -> bool:
        """Whether a job has failed in this round."""
        return self.line(job).get("event") == "failed"

    def note(self, event: Event, job: Job, values: Mapping[str, Any]) -> None:
        """Note what became of a job; see `Ledger.add`."""
        if event in WITHOUT_RESULT:
            self.done_before.discard(job.key)
        self._ledger.add(event, *self.id(job), values)

    def finished(self) -> int:
        """The number of jobs that are done or have failed, in all processes."""
        return min(len(self.done_before) + len(self._ledger.this_round), len(self._jobs))

    def is_settled(self, job: Job) -> bool:
        """Whether nothing is left to do for a job, as far as this process knows."""
        if job.key in self.done_before:
            return True
        line = self.line(job)
        return bool(line) and (line["event"] in WITHOUT_RESULT or not lacks_sheet(job))

    def is_finished(self, job: Job) -> bool:
        """Whether a job is settled, or was done before by the ledger; opens no file."""
        if self.is_settled(job):
            return True
        if not self._is_known_to_be_done(job) or lacks_sheet(job):
            return False
        line = self._ledger.results[job.key]
        if self._lacks_doubt(job, has_numbers=bool(line.get(DOUBT_HAS_NUMBERS))):
            return False
        self.done_before.add(job.key)
        return True

    def is_done(self, job: Job) -> bool:
        """Whether the result of a job exists and is right.

        Raises:
            OutputError: if another file has its name and may not be replaced.
        """
        destination = self.destination_of(job)
        if not destination.has(job.output):
            return False
        if job.output.is_dir():
            raise OutputError(f"{job.output} is a folder; move it away.")
        with destination.reading(job.output) as file:
            fault = self._check_result(job, file)
            lacks_doubt = not fault and self._lacks_doubt(
                job, has_numbers=self._has_numbers(job, file)
            )
        if fault and not self._method.overwrite and not job.shard:
            raise OutputError(
                f"{self.name_of(job)} already exists and {fault}; move it away or allow "
                "overwriting."
            )
        return not fault and not lacks_doubt

    def written_values(
        self, job: Job, record: Record, input_stamp: Sequence[int]
    ) -> dict[str, Any]:
        """Deliver a result that is complete here; returns the values that the ledger keeps."""
        destination = self.destination_of(job)
        values = self._ledger_values(job, record, input_stamp, job.output)
        destination.deliver(job.files)
        return values | {"result_stamp": destination.stamp(job.output)}

    def _lacks_doubt(self, job: Job, *, has_numbers: bool) -> bool:
        """Whether a file of the standard deviation is missing, or older than the result."""
        if job.doubt is None:
            return False
        destination = self.destination_of(job)
        files = [job.doubt.picture] + ([job.doubt.numbers] if has_numbers else [])
        return any(destination.lacks(path, job.output) for path in files)

    def _has_numbers(self, job: Job, result: Path) -> bool:
        """Whether the standard deviation of a job is a file of numbers too."""
        return job.doubt is not None and (self._method.layout is not None or has_numbers(result))

    def _ledger_values(
        self, job: Job, record: Record, input_stamp: Sequence[int], result: Path
    ) -> dict[str, Any]:
        values = ledger_values(job, record, input_stamp, result)
        if job.doubt is not None:
            values[DOUBT_HAS_NUMBERS] = self._has_numbers(job, result)
        return values

    def _is_unchanged(self, job: Job, line: Mapping[str, Any]) -> bool:
        return is_unchanged(job, line, self.destination_of(job).stamp)

    def _is_known_to_be_done(self, job: Job) -> bool:
        """Whether the ledger lists this input and result as they are on disk; opens neither."""
        line = self._ledger.results.get(job.key, {})
        same_settings = line.get("settings_id") == self.id(job)[1]
        return same_settings and not self.line(job) and self._is_unchanged(job, line)

    def _check_result(self, job: Job, file: Path) -> str:
        """Say what is wrong with the file that has a result's name; note the job if it is right."""
        line, stamp = self._ledger.results.get(job.key), job.source.stamp()
        try:
            record = record_of(file, line, self._method.layout)
        except NotAResultError as error:
            return str(error)
        fault = difference(record, self._method.settings_of(job), job.source)
        made_now = bool(self.line(job))  # but its sheet is missing
        if fault or made_now or self._lacks_doubt(job, has_numbers=self._has_numbers(job, file)):
            return fault
        if line is not None and self._is_unchanged(job, line):
            self.done_before.add(job.key)
        else:
            values = self._ledger_values(job, record, stamp, file)
            values["result_stamp"] = self.destination_of(job).stamp(job.output)
            self.note("verified", job, values)
        return ""
