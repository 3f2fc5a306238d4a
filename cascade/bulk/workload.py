"""Estimates how much there is to do, by the heads of the files, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import fmean

from cascade.bulk.jobs import Job
from cascade.reporting.words import counted

MOST_HEADS = 1000  # files to look into; of more, those between are taken for average
LEAST_S = 1.0  # of work before an estimate by parts of the first picture counts
Size = tuple[int, int]  # (height, width) in pixels


class Workload:
    """The jobs that are to be done, weighted by the work that each takes.

    Time is estimated by the work done since the start, by all processes.

    Args:
        jobs: the jobs without a result.
        work: the work that a picture of this height and width in pixels takes, in any unit.
        factor: factor by which the sides of a picture grow.
        clock: returns the time in seconds.

    Attributes:
        jobs: number of these jobs.
        pages: number of pages in them.
        megapixels: number of megapixels of all results; None if no file tells its size.
        is_exact: whether every file told its size.
        has_result: whether a result was made since the start.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        work: Callable[[Size], float],
        factor: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.jobs = len(jobs)
        step = -(-len(jobs) // MOST_HEADS) or 1
        heads = [(job.key, _page_sizes(job)) for job in jobs[::step]]
        sizes = {key: pages for key, pages in heads if pages}
        areas = [sum(height * width for height, width in pages) for pages in sizes.values()]
        works = {key: sum(map(work, pages)) for key, pages in sizes.items()}
        self.megapixels = fmean(areas) * factor**2 / 1e6 * len(jobs) if areas else None
        self.pages = round(fmean(map(len, sizes.values())) * len(jobs)) if sizes else len(jobs)
        self.is_exact = len(sizes) == len(jobs)
        mean = fmean(works.values()) if works else 1.0
        self._work = {job.key: works.get(job.key, mean) for job in jobs}
        self._total = sum(self._work.values())
        self._done = 0.0
        self._clock = clock
        self._start_s = clock()
        self.has_result = False

    @property
    def unfinished(self) -> int:
        """The number of jobs that are not settled."""
        return len(self._work)

    def settle(self, key: str, *, made: bool) -> None:
        """Count a job as done, or as one that took no work because it failed or existed."""
        work = self._work.pop(key, 0.0)
        if made:
            self._done += work
            self.has_result = True
        else:
            self._total -= work

    def left_s(self, key: str = "", part: float = 0.0) -> float | None:
        """The estimated time in seconds until all jobs are done.

        Args:
            key: the current job.
            part: share of it that is done, in [0, 1].

        Returns:
            None if too little is done to tell.
        """
        done = self._done + part * self._work.get(key, 0.0)
        passed_s = self._clock() - self._start_s
        if done <= 0 or (not self.has_result and passed_s < LEAST_S):
            return None
        return passed_s * max(0.0, self._total - done) / done

    def line(self, done_before: int, model: str) -> str:
        """Pictures and megapixels in one line.

        Args:
            done_before: number of further jobs whose results exist.
            model: name of the model.
        """
        are = "is" if done_before == 1 else "are"
        before = f" ({done_before:,} more {are} already done)" if done_before else ""
        about = "" if self.is_exact else "about "
        pages = f", {about}{counted(self.pages, 'page')}" if self.pages > self.jobs else ""
        area = ""
        if self.megapixels is not None:
            area = f", {about}{short_megapixels(self.megapixels)} to make"
        return f"{counted(self.jobs, 'image')}{before}{pages}{area} with {model}"


def _page_sizes(job: Job) -> Sequence[Size]:
    """The sizes of the pages that a job works on; empty if unknown."""
    heads = job.source.heads()
    if heads is None:
        return ()
    return heads.sizes if job.pages == "all" else heads.sizes[:1]


def short_megapixels(megapixels: float) -> str:
    """Format megapixels as `1,234 megapixels`, `3.4 megapixels` or `0.02 megapixels`."""
    if megapixels >= 10:
        number = f"{megapixels:,.0f}"
    elif megapixels >= 1:
        number = f"{megapixels:.1f}"
    else:
        number = f"{max(megapixels, 1e-4):.1g}"
    return f"{number} megapixels"


def rough_duration(seconds: float) -> str:
    """Format seconds as `40 s`, `14 min`, `3 h 20 min` or `2 d 4 h`, as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(round(seconds / 600) * 10, 60)
    if hours < 36:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
