"""Makes the results of jobs that this process has claimed, and notes what became of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

from cascade.bulk.jobs import Job
from cascade.bulk.ledger import Ledger
from cascade.bulk.making import DiskError, lacks_sheet, make_result, write_sheet
from cascade.bulk.method import Method, UnsuitableError
from cascade.bulk.records import ledger_values
from cascade.bulk.reports import Reports
from cascade.bulk.standing import Standing
from cascade.bulk.together import Drawn, draw_together
from cascade.errors import CascadeError


@final
class Making:
    """Makes what jobs lack; a failed job is noted and reported, and the others go on.

    Args:
        method: how to make each result.
        standing: what has become of each job.
        ledger: the ledger that all processes share.
        reports: where progress and failures are reported.

    Attributes:
        reported: ids of failures that were reported.
    """

    def __init__(
        self, method: Method, standing: Standing, ledger: Ledger, reports: Reports
    ) -> None:
        self._method = method
        self._standing = standing
        self._ledger = ledger
        self._reports = reports
        self.reported: set[tuple[str, str]] = set()

    def make(self, jobs: Sequence[Job]) -> None:
        """Finish jobs that can be drawn together, except those that others have finished.

        Raises:
            DiskError: if the disk is full.
        """
        if not jobs:
            return
        self._ledger.refresh()
        jobs = [job for job in jobs if not self._standing.is_settled(job)]
        drawn = self._draw_together(jobs)
        for job in jobs:
            self.progress(job, 0.0)
            message = self._try(job, drawn)
            self.count(job)
            self.progress(job, 0.0, message)
            self._reports.time_left()
            self._standing.keep_ledger()

    def count(self, job: Job) -> None:
        """Count a job that is settled."""
        line = self._standing.line(job)
        self._reports.settled(job, made=line.get("event") == "made")

    def progress(self, job: Job, part: float, message: str = "", page: str = "") -> None:
        """Report which job is at work, and which part of it is done, from 0 to 1."""
        self._reports.progress(job, self._standing.finished(), part, message, page)

    def _draw_together(self, jobs: Sequence[Job]) -> Drawn:
        missing = [job for job in jobs if not self._standing.has_file(job)]
        if len(missing) < 2:
            return Drawn()
        return draw_together(
            missing, self._method, lambda done, total: self.progress(missing[0], done / total)
        )

    def _try(self, job: Job, drawn: Drawn) -> str:
        """Make what is missing of a job and return a message, or report why that failed."""
        name = job.source.name
        try:
            return self._finish(job, drawn)
        except DiskError:
            raise
        except UnsuitableError as reason:
            self._standing.note("left_out", job, {"name": name, "reason": str(reason)})
            self._reports.left_out(name, str(reason))
            return ""
        except CascadeError as error:
            reason = one_line(error, name)
        except MemoryError:
            reason = "not enough memory."
        except Exception as error:  # one odd picture must not end the whole run
            reason = f"unexpected {type(error).__name__}: {error}"
        reason = " ".join(reason.split())
        self._standing.note("failed", job, {"name": name, "reason": reason})
        self.reported.add(self._standing.id(job))
        self._reports.failure(name, reason)
        return ""

    def _finish(self, job: Job, drawn: Drawn) -> str:
        message = "" if self._standing.is_done(job) else self._make(job, drawn)
        if lacks_sheet(job):
            write_sheet(job, self._method)
        return message

    def _make(self, job: Job, drawn: Drawn) -> str:
        begin, stamp = time.monotonic(), job.source.stamp()
        self._standing.destination_of(job).begin(job.files)
        record, losses = make_result(
            job,
            self._method,
            lambda part, page: self.progress(job, part, page=page),
            lambda remark: self._reports.remark(job, remark),
            drawn.results,
            lambda record, file: self._ledger.add_written(
                job.key, ledger_values(job, record, stamp, file)
            ),
        )
        seconds = time.monotonic() - begin + drawn.seconds
        values = self._standing.written_values(job, record, stamp)
        values |= {"seconds": round(seconds, 3), "lost": [[each.what, each.why] for each in losses]}
        self._standing.note("made", job, values)
        name = job.source.name
        result_name = self._standing.name_of(job)
        return f"{self._method.description}: {name} -> {result_name} ({seconds:.1f} s)"


def one_line(error: Exception, name: str) -> str:
    """The reason of a failure without the name of the input, which stands before it."""
    return " ".join(str(error).removeprefix(f"{name}: ").split())
