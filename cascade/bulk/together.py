"""Draws small pictures of one size together, because a device is faster at many than at one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cascade.bulk.jobs import Job
from cascade.bulk.method import Method, PartProgress
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import decode_picture

SHARE = 8  # there are at least as many runs of neighbours as this


@dataclass(frozen=True)
class Drawn:
    """Results that were drawn together and are not written yet.

    Attributes:
        results: by the SHA-256 of the input and the seed.
        seconds: the time that one of them took, on average.
    """

    results: Mapping[tuple[str, int], Picture] = field(default_factory=dict)
    seconds: float = 0.0


def groups(
    jobs: Sequence[Job], method: Method, is_finished: Callable[[Job], bool]
) -> Iterator[list[Job]]:
    """Split jobs into runs of neighbours that can be drawn together.

    A job is alone if it is finished, large, of several pages, or of unknown size. No run has more
    than a part of the jobs, so that other processes find work too.
    """
    most = max(1, len(jobs) // SHARE)
    group: list[Job] = []
    size: tuple[int, int] | None = None
    for job in jobs:
        its_size = None if is_finished(job) else _single_size(job)
        work = math.inf if its_size is None else (len(group) + 1) * method.work(its_size)
        fits = its_size == size and work <= method.work_together and len(group) < most
        if group and not fits:
            yield group
            group = []
        group.append(job)
        size = its_size
    if group:
        yield group


def draw_together(jobs: Sequence[Job], method: Method, progress: PartProgress) -> Drawn:
    """Draw the results of jobs together.

    Returns:
        The results; none if a picture cannot be read or drawn. Each is then made alone, where its
        failure is reported with its name.
    """
    begin = time.monotonic()
    try:
        decoded = [
            (
                job,
                decode_picture(
                    job.source.read_bytes(), job.source.name, truncated=method.truncated
                ),
            )
            for job in jobs
        ]
        suitable = [each for each in decoded if not method.reason_against(*each)]
        jobs, pictures = [job for job, _ in suitable], [picture for _, picture in suitable]
        keys = [(job.source.sha256(), job.seed) for job in jobs]
        if len(pictures) < 2 or len({picture.size for picture in pictures}) > 1:
            return Drawn()
        results = method.make(pictures, [job.seed for job in jobs], progress)
    except Exception:
        return Drawn()
    seconds = (time.monotonic() - begin) / len(jobs)
    return Drawn(dict(zip(keys, results, strict=True)), seconds)


def _single_size(job: Job) -> tuple[int, int] | None:
    """Height and width of a job's only page; None if they are unknown or there are more."""
    heads = job.source.heads()
    return heads.sizes[0] if heads is not None and len(heads.sizes) == 1 else None
