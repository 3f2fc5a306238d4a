"""A dry run: what a run would do with each picture, without drawing or writing anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cascade.bulk.doubt_files import check_doubt_files
from cascade.bulk.jobs import Job, Plan
from cascade.bulk.making import check_format_holds_pages, check_format_holds_result, named_page
from cascade.bulk.method import Method, UnsuitableError
from cascade.bulk.one_job import one_line
from cascade.bulk.outcome import Outcome
from cascade.bulk.reports import Reports
from cascade.bulk.shards import Packing
from cascade.bulk.standing import Standing
from cascade.errors import CascadeError
from cascade.imaging.pages import Pages
from cascade.imaging.picture_reading import count_pages, decode_picture
from cascade.reporting.words import counted

OnLine = Callable[[str], None]


class Expected(NamedTuple):
    """What a result would be.

    Attributes:
        size_px: its height and width, of several pages those of the first.
        pages: the number of its pages.
    """

    size_px: tuple[int, int]
    pages: int = 1

    @property
    def text(self) -> str:
        """Width, height and pages in words."""
        height, width = self.size_px
        pages = f", {counted(self.pages, 'page')}" if self.pages > 1 else ""
        return f"{width}x{height} px{pages}"


def rehearse(
    plan: Plan,
    method: Method,
    standing: Standing,
    packing: Packing,
    reports: Reports,
    on_line: OnLine,
) -> Outcome:
    """Tell what a run would do.

    Args:
        plan: the results of the run.
        method: how it would make them.
        standing: what has become of its jobs, with a ledger in memory.
        packing: which shards of results are complete.
        reports: where pictures are reported that would fail or be left out.
        on_line: called with a line about each result that would be made or is there.

    Returns:
        The counts, in which `new` are the results to make.
    """
    rehearsal = _Rehearsal(method, standing, reports, on_line)
    for job in plan.jobs:
        if job.shard is None:
            rehearsal.add(job)
    for shard in plan.shards:
        try:
            failed = packing.failures_of(shard)
        except (CascadeError, OSError) as error:
            rehearsal.fail(shard.source.name, one_line(error, shard.source.name))
            continue
        for job in shard.jobs:
            if failed is None:
                rehearsal.add(job)
            elif job.key in failed:
                rehearsal.fail(job.source.name, failed[job.key])
            else:
                rehearsal.count_done(job)
    return rehearsal.outcome()


class _Rehearsal:
    """Counts jobs by what would become of them."""

    def __init__(
        self, method: Method, standing: Standing, reports: Reports, on_line: OnLine
    ) -> None:
        self._method = method
        self._standing = standing
        self._reports = reports
        self._on_line = on_line
        self._new = self._done = 0
        self._failed: list[tuple[str, str]] = []
        self._unsuitable: dict[tuple[str, str], None] = {}  # each picture once

    def add(self, job: Job) -> None:
        """Count a job; its picture is decoded unless the result is there."""
        name = job.source.name
        try:
            if self._standing.is_finished(job) or self._standing.is_done(job):
                self.count_done(job)
                return
            check_doubt_files(job, overwrite=self._method.overwrite)
            expected = _expected(job, self._method)
        except UnsuitableError as reason:
            self._unsuitable[name, str(reason)] = None
            self._reports.left_out(name, str(reason))
        except CascadeError as error:
            self.fail(name, one_line(error, name))
        except MemoryError:
            self.fail(name, "not enough memory.")
        else:
            self._new += 1
            self._on_line(f"to be made: {self._standing.name_of(job)}, {expected.text}")

    def count_done(self, job: Job) -> None:
        """Count a job whose result is there."""
        self._done += 1
        self._on_line(f"already done: {self._standing.name_of(job)}")

    def fail(self, name: str, reason: str) -> None:
        """Count a picture or a shard without a result."""
        self._failed.append((name, reason))
        self._reports.failure(name, reason)

    def outcome(self) -> Outcome:
        return Outcome(
            new=self._new,
            done_before=self._done,
            failed=self._failed,
            unfinished=0,
            left_out=0,
            unsuitable=list(self._unsuitable),
        )


def _expected(job: Job, method: Method) -> Expected:
    """What the result of a job would be.

    Raises:
        UnsuitableError: if the picture is to be left out.
        CascadeError: if the result cannot be made from the picture, or stored in the format.
    """
    if method.check_file is not None:
        size_px, images = method.check_file(job)
        return Expected(method.size_of_result(size_px), images)
    data, name = job.source.read_bytes(), job.source.name
    if job.pages == "all" and count_pages(data, name) > 1:
        pages = Pages(data, name)
        check_format_holds_pages(pages, job.output, method)
        for number, page in enumerate(pages):
            if number == 0:
                method.check_suits(job, page.picture)
            with named_page(number, pages):
                method.check(page.picture)
        return Expected(method.size_of_result(pages.sizes[0]), len(pages))
    picture = decode_picture(data, name, truncated=method.truncated)
    method.check_suits(job, picture)
    method.check(picture)
    check_format_holds_result(picture, job.output, method)
    return Expected(method.size_of_result(picture.size))
