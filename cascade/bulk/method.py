"""Method: how a command makes the result of a picture, and what it records of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cascade.bulk.jobs import Job
from cascade.bulk.records import Record
from cascade.bulk.sheets import Before, Provenance
from cascade.imaging.credentials import Signer
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import Truncated
from cascade.imaging.rasters.layout import Layout
from cascade.restoration.doubt import over_seeds
from cascade.restoration.expected_error import ExpectedError

PartProgress = Callable[[int, int], None]  # (done, total), in parts of one picture or page
JobProgress = Callable[[float, str], None]  # share that is done, and which page it is
RecordOf = Callable[[tuple[int, int], int], Record]  # of a result's size and number of images
MakeFile = Callable[[Job, Path, RecordOf, JobProgress, Callable[[str], None]], Record]
CheckFile = Callable[[Job], tuple[tuple[int, int], int]]  # size and number of a file's images


class UnsuitableError(Exception):
    """A picture that the command leaves out; the message says what the picture is."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to make the result of a picture.

    Attributes:
        command: `upscale`, `colourise`, `restore` or `edit`.
        description: what was done to a picture, for messages, such as `upscaled`.
        make: makes results from pictures of one size, their seeds and a callback for progress.
        work: the work that a picture of this height and width in pixels takes, in any unit.
        remark: what the user should know about a picture, to follow its name; empty for nothing.
        reason_to_leave_out: what speaks against working on a picture, to follow how many there are;
            empty for nothing. Pictures of shards are never left out.
        check: checks before the long work that the result of a picture or a page can be made;
            raises a `CascadeError` otherwise.
        settings: settings to record, without those of the job; anything that JSON can hold.
        metadata: whether to write the record, EXIF and resolution into the results.
        signer: who signs the results; None for nobody.
        overwrite: whether existing files that differ from the results may be replaced.
        factor: factor by which the sides of a picture grow.
        added_px: height and width that a result has besides, as from new borders.
        before: what the left side of a before/after sheet shows, see `write_comparison`.
        truncated: what happens to a JPEG whose end is missing, see `decode_picture`.
        work_together: largest work of pictures that are drawn together.
        seeds: number of seeds whose mean each result is; see `over_seeds`.
        expected: what their standard deviation says about errors; None if that is not known.
        hole: the pixels of a picture's result that are drawn, (H, W) bool; None for all.
        make_file: makes the whole result of a job instead of `make`, writes it to a file with its
            record, and returns that; None for colour pictures.
        check_file: checks without drawing that `make_file` can make the result of a job; returns
            height and width of the file's first image in pixels, and the number of images.
        layout: how files of results are divided into images, if they are of bands; else None.
    """

    command: str
    description: str
    make: Callable[[Sequence[Picture], Sequence[int], PartProgress], list[Picture]]
    settings: Mapping[str, Any]
    work: Callable[[tuple[int, int]], float]
    remark: Callable[[Picture], str] = lambda picture: ""
    reason_to_leave_out: Callable[[Picture], str] = lambda picture: ""
    check: Callable[[Picture], None] = lambda picture: None
    metadata: bool = True
    signer: Signer | None = None
    overwrite: bool = False
    factor: float = 1.0
    added_px: tuple[int, int] = (0, 0)
    before: Before = "bicubic"
    truncated: Truncated = "refuse"
    work_together: float = 0.0
    make_file: MakeFile | None = None
    check_file: CheckFile | None = None
    layout: Layout | None = None
    seeds: int = 1
    expected: ExpectedError | None = None
    hole: Callable[[Picture], Tensor] | None = None

    def over_seeds(self, count: int) -> Method:
        """The method that makes means of the results of several seeds, counted up from a job's."""
        return replace(
            self,
            description=f"{self.description} (mean of {count} seeds)",
            settings={
                **self.settings,
                "seeds": count,
                **({} if self.expected is None else {"expected_error": self.expected.digest}),
            },
            work=lambda size_px: count * self.work(size_px),
            work_together=0.0,
            seeds=count,
        )

    def result_of(
        self, picture: Picture, seed: int, progress: PartProgress
    ) -> tuple[Picture, Tensor | None]:
        """The result of a picture, and its standard deviation if it has several seeds."""
        if self.seeds == 1:
            return self.make([picture], [seed], progress)[0], None
        mean, std = over_seeds(
            lambda each, part: self.make([picture], [each], part)[0],
            range(seed, seed + self.seeds),
            progress=progress,
        )
        if self.expected is None:
            return mean, std
        hole = None if self.hole is None else self.hole(picture)
        return mean, self.expected.of(std, mean, drawn=hole)

    def size_of_result(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels of the result of a picture of that height and width."""
        height, width = (
            round(side * self.factor) + more
            for side, more in zip(size_px, self.added_px, strict=True)
        )
        return height, width

    def reason_against(self, job: Job, picture: Picture) -> str:
        """Why the picture of a job is to be left out; empty if it is not."""
        return "" if job.shard else self.reason_to_leave_out(picture)

    def check_suits(self, job: Job, picture: Picture) -> None:
        """Check that the picture of a job is not to be left out.

        Raises:
            UnsuitableError: if it is.
        """
        if reason := self.reason_against(job, picture):
            raise UnsuitableError(reason)

    def settings_of(self, job: Job) -> dict[str, Any]:
        """The settings of a job, including its seed."""
        pages = {"pages": job.pages} if job.pages == "first" else {}
        return {**self.settings, "seed": job.seed, **pages}

    def provenance_of(self, result: Picture) -> Provenance | None:
        """What a sheet says of how a result came about; None without metadata."""
        if not self.metadata:
            return None
        xmp = result.metadata.xmp
        return Provenance(settings=self.settings, signer=self.signer, xmp=xmp)
