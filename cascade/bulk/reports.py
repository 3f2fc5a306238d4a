"""What a run tells its user: an estimate, notes, remarks on pictures, failures and progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from cascade.bulk.jobs import Job
from cascade.bulk.method import Method
from cascade.bulk.outcome import failure_line
from cascade.bulk.progress import MessageKind, Note, ProgressUpdate
from cascade.bulk.workload import Workload, rough_duration
from cascade.reporting.words import counted

ALREADY_EXISTS = "already exists and"  # in a reason of `Standing.is_done`, before the fault
LEAST_ESTIMATE_S = 10.0  # shorter work needs no estimate


class Reports:
    """Passes on what happens, each failure and each kind of remark once.

    Args:
        total: number of jobs.
        method: how results are made.
        on_progress: called with every change; None for silence.

    Attributes:
        failed: number of failures reported so far.
    """

    def __init__(
        self, total: int, method: Method, on_progress: Callable[[ProgressUpdate], None] | None
    ) -> None:
        self.failed = 0
        self._total = total
        self._method = method
        self._on_progress = on_progress
        self._workload: Workload | None = None
        self._time_is_told = False
        self._has_remark = False
        self._faults: Counter[str] = Counter()  # of existing files

    def estimate(self, jobs: Sequence[Job]) -> None:
        """Tell how much there is to do.

        Args:
            jobs: the jobs that are not done yet.
        """
        if not jobs:
            return
        self._workload = Workload(jobs, work=self._method.work, factor=self._method.factor)
        model = str(self._method.settings["model"])
        self._say(self._workload.line(self._total - len(jobs), model), "note")

    def settled(self, job: Job, *, made: bool) -> None:
        """Count a job that is finished; `made` says whether a result was made for it now."""
        if self._workload is not None:
            self._workload.settle(job.key, made=made)

    def time_left(self) -> None:
        """Tell once, after the first result, how long the others will take."""
        workload = self._workload
        if workload is None or self._time_is_told or not workload.has_result:
            return
        self._time_is_told = True
        left_s = workload.left_s()
        if left_s is not None and left_s >= LEAST_ESTIMATE_S:
            others = counted(workload.unfinished, "further image")
            duration = rough_duration(left_s)
            self._say(f"{others} will take about {duration} (measured on the first)", "note")

    def remark(self, job: Job, remark: str) -> None:
        """Pass on a remark about a picture: the first one to everybody."""
        is_first = not self._has_remark
        self._has_remark = True
        more = "; further such images are not mentioned" if is_first and self._total > 1 else ""
        self._say(f"{job.source.name} {remark}{more}", "note" if is_first else "detail")

    def failure(self, name: str, reason: str) -> None:
        """Report an input without a result."""
        self.failed += 1
        _, _, fault = reason.partition(f" {ALREADY_EXISTS} ")
        is_further = fault in self._faults  # each picture of a folder fails alike
        if fault:
            self._faults[fault] += 1
        self._say(failure_line(name, reason), "detail" if is_further else "failure")

    def further_failures(self) -> None:
        """Report how many pictures failed for the same fault of existing files as another one."""
        for fault, count in self._faults.items():
            if count > 1:
                others = counted(count - 1, "further image")
                text = f"the result of each {ALREADY_EXISTS} {fault}"
                self._say(failure_line(others, text), "failure")
        self._faults.clear()

    def left_out(self, name: str, reason: str) -> None:
        """Report a picture that the command does not work on; the last lines count them."""
        self._say(f"left out: {name}: {reason}", "detail")

    def note(self, note: Note) -> None:
        """Pass on a note and its details."""
        self._say(note.text, "note")
        for line in note.details:
            self._say(line, "detail")

    def progress(
        self, job: Job, finished: int, part: float, message: str = "", page: str = ""
    ) -> None:
        """Tell how far the work is.

        Args:
            job: the current job.
            finished: number of finished jobs.
            part: share of the current job that is done, in [0, 1].
            message: one line about its result.
            page: which page of it, in words.
        """
        if self._on_progress is None:
            return
        update = ProgressUpdate(
            finished=finished,
            total=self._total,
            name=job.source.name,
            part=part,
            message=message,
            left_s=None if self._workload is None else self._workload.left_s(job.key, part),
            failed=self.failed,
            page=page,
        )
        self._on_progress(update)

    def _say(self, message: str, kind: MessageKind) -> None:
        if self._on_progress is not None:
            self._on_progress(ProgressUpdate(0, self._total, "", 0.0, message, kind))
