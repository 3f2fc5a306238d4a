"""Makes the result of a file of bands: of every image of it, in one file as it came."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from cascade.bulk.doubt_files import mark_doubt_as_new, words_of, write_band_doubt
from cascade.bulk.jobs import Job
from cascade.bulk.method import JobProgress, RecordOf
from cascade.bulk.records import Record
from cascade.errors import CascadeError
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.raster_file import RasterFile
from cascade.imaging.rasters.reading import open_rasters
from cascade.imaging.rasters.writing import check_raster_format, write_rasters
from cascade.restoration.bands import ClippedNumbers, check_bands, kind_of_results
from cascade.restoration.doubt import over_seeds
from cascade.restoration.expected_error import ExpectedError
from cascade.sampling.walk import Progress
from cascade.space import Space

RestoreRaster = Callable[[Raster, int, Progress], Raster]


@final
@dataclass(frozen=True, kw_only=True)
class BandFiles:
    """Makes the results of files of bands.

    Attributes:
        restore: makes the result of an image, given a seed and a callback for progress.
        space: space of the images.
        result_space: space of the results.
        axis: axis of a NIfTI volume along which it is cut into slices.
        nodata: a number that stands for a missing one besides what a file says; None for none.
        seeds: number of seeds whose mean each result is, counted up from that of the job.
        expected: what their standard deviation says about errors; None if that is not known.
        metadata: whether to write mark and record into the results.
    """

    restore: RestoreRaster
    space: Space
    result_space: Space
    axis: int = 2
    nodata: float | None = None
    seeds: int = 1
    expected: ExpectedError | None = None
    metadata: bool = True

    @property
    def layout(self) -> Layout:
        """How files are divided into images."""
        return Layout(self.space.channels, self.axis)

    def make(
        self,
        job: Job,
        path: Path,
        record_of: RecordOf,
        progress: JobProgress,
        on_remark: Callable[[str], None],
    ) -> Record:
        """Make the result of a job and write it. All images of a file share one seed.

        Args:
            job: the job.
            path: the file to write, which gets the name of the job's result later.
            record_of: gives the record of results of a size, (H, W) in pixels, and a number.
            progress: called with the share of the job that is done and such words as
                `image 3 of 40`, which are empty if there is one image.
            on_remark: called with what the user should know about the images, when all are made.

        Returns:
            The record of the result.

        Raises:
            CascadeError: if the result cannot be made.
        """
        with self._opened(job) as file:
            count = _count(file, job)
            clipped = ClippedNumbers(self.space)
            results = self._results(file, job, count, clipped, record_of, progress)
            result = next(results)
            record = record_of(result.size, count)
            mark = self._mark(record, result)
            write_rasters(path, itertools.chain([result], results), count, mark=mark)
        if clipped.remark:
            on_remark(clipped.remark)
        if self.seeds > 1:
            mark_doubt_as_new(job, path)
        return record

    def check(self, job: Job) -> tuple[tuple[int, int], int]:
        """Check, without drawing, that the result of a job can be made. All images are decoded.

        Returns:
            Height and width of the first image in pixels, and the number of images.

        Raises:
            CascadeError: if it cannot be made.
        """
        with self._opened(job) as file:
            count, sizes = _count(file, job), []
            for number in range(count):
                with _named(_words(number, count)):
                    sizes.append(self._image(file, number, job, count).size)
        return sizes[0], count

    @contextmanager
    def _opened(self, job: Job) -> Iterator[RasterFile]:
        with job.source.open() as stream:
            yield open_rasters(stream, job.source.name, self.layout)

    def _image(self, file: RasterFile, number: int, job: Job, count: int) -> Raster:
        """An image of a file; the first one tells whether the result can be made and stored."""
        raster = file.image(number).with_nodata(self.nodata)
        if number == 0:
            check_bands(raster, self.space)
            kind = kind_of_results(raster, self.space, self.result_space)
            check_raster_format(job.output, kind, count)
        return raster

    def _mark(self, record: Record, result: Raster) -> FileMark | None:
        """The mark of a result; None without metadata."""
        if not self.metadata:
            return None
        is_generated = result.origin is not None and result.origin.is_generated
        return FileMark.of_result(record.to_json(), is_generated=is_generated)

    def _results(
        self,
        file: RasterFile,
        job: Job,
        count: int,
        clipped: ClippedNumbers,
        record_of: RecordOf,
        progress: JobProgress,
    ) -> Iterator[Raster]:
        """The result of each image of a file.

        Standard deviations are written before the last one, so that a file of results never exists
        without them: nothing else tells the next run whether its work was finished.
        """
        stds: list[Raster] = []
        for number in range(count):
            words = _words(number, count)

            def report(done: int, total: int, number: int = number, words: str = words) -> None:
                progress((number + done / total) / count, words)

            with _named(words):
                raster = self._image(file, number, job, count)
                clipped.add(raster)
                result, std = self._result(raster, job.seed, report)
            if std is not None:
                stds.append(std)
            if stds and number == count - 1:
                words = words_of(self.seeds, self.expected)
                mark = self._mark(record_of(result.size, count), result)
                write_band_doubt(job, words, stds, self.result_space, mark)
            yield result

    def _result(
        self, raster: Raster, seed: int, progress: Progress
    ) -> tuple[Raster, Raster | None]:
        """The result of an image, and its standard deviation if it has several seeds."""

        if self.seeds == 1:
            return self.restore(raster, seed, progress), None
        seeds = range(seed, seed + self.seeds)
        mean, std = over_seeds(partial(self.restore, raster), seeds, progress=progress)
        if self.expected is not None:
            std = self.expected.of(std, mean, self.result_space)
        return mean, std


def _count(file: RasterFile, job: Job) -> int:
    """How many images of a file a job works on."""
    return 1 if job.pages == "first" else len(file)


def _words(number: int, count: int) -> str:
    """Which image of a file it is, counted from 0, in words; empty if there is one."""
    return f"image {number + 1} of {count}" if count > 1 else ""


@contextmanager
def _named(words: str) -> Iterator[None]:
    """A block whose errors begin with such words."""
    try:
        yield
    except CascadeError as error:
        raise type(error)(f"{words}: {error}" if words else str(error)) from error
