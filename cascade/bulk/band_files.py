"""Makes the result of a file of bands: every image of it upscaled, in one file as it came."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

from cascade.bulk.doubt_files import write_band_doubt
from cascade.bulk.jobs import Job
from cascade.errors import CascadeError
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.raster_file import RasterFile
from cascade.imaging.rasters.reading import open_rasters
from cascade.imaging.rasters.writing import check_raster_format, write_rasters
from cascade.restoration.bands import ClippedNumbers, check_bands, upscale_raster
from cascade.restoration.doubt import over_seeds
from cascade.restoration.upscaling import Upscaling
from cascade.sampling.walk import Progress
from cascade.stage import Stage

JobProgress = Callable[[float, str], None]  # share that is done, and which image it is


@final
@dataclass(frozen=True, kw_only=True)
class BandFiles:
    """Upscales files of bands.

    Attributes:
        stages: the upsamplers.
        upscaling: how to upscale each image.
        axis: axis of a NIfTI volume along which it is cut into slices.
        nodata: a number that stands for a missing one besides what a file says; None for none.
        seeds: number of seeds whose mean each result is, counted up from that of the job.
    """

    stages: Sequence[Stage]
    upscaling: Upscaling
    axis: int = 2
    nodata: float | None = None
    seeds: int = 1

    def make(
        self, job: Job, progress: JobProgress, on_remark: Callable[[str], None]
    ) -> tuple[tuple[int, int], int]:
        """Make the result of a job and write it. All images of a file share one seed.

        Args:
            job: the job.
            progress: called with the share of the job that is done and such words as
                `image 3 of 40`, which are empty if there is one image.
            on_remark: called with what the user should know about the images, when all are made.

        Returns:
            Height and width of the results in pixels, and their number.

        Raises:
            CascadeError: if the result cannot be made.
        """
        source, space = job.source, self.stages[0].space
        stds: list[Raster] = []
        with source.open() as stream:
            file = open_rasters(stream, source.name, Layout(space.channels, self.axis))
            count = 1 if job.pages == "first" else len(file)
            clipped = ClippedNumbers(space)
            results = self._results(file, job, count, clipped, progress, stds)
            result = next(results)
            write_rasters(job.output, itertools.chain([result], results), count)
        if clipped.remark:
            on_remark(clipped.remark)
        if stds:
            write_band_doubt(job, self.seeds, stds, space)
        return result.size, count

    def _results(
        self,
        file: RasterFile,
        job: Job,
        count: int,
        clipped: ClippedNumbers,
        progress: JobProgress,
        stds: list[Raster],
    ) -> Iterator[Raster]:
        """The result of each image of a file; standard deviations are added to `stds`."""
        for number in range(count):
            words = f"image {number + 1} of {count}" if count > 1 else ""

            def report(done: int, total: int, number: int = number, words: str = words) -> None:
                progress((number + done / total) / count, words)

            try:
                raster = file.image(number).with_nodata(self.nodata)
                if number == 0:
                    check_bands(raster, self.stages[0].space)
                    check_raster_format(job.output, raster, count)
                clipped.add(raster)
                result, std = self._result(raster, job.seed, report)
            except CascadeError as error:
                raise type(error)(f"{words}: {error}" if words else str(error)) from error
            if std is not None:
                stds.append(std)
            yield result

    def _result(
        self, raster: Raster, seed: int, progress: Progress
    ) -> tuple[Raster, Raster | None]:
        """The result of an image, and its standard deviation if it has several seeds."""

        def make(seed: int, progress: Progress) -> Raster:
            upscaling = replace(self.upscaling, seed=seed)
            return upscale_raster(self.stages, raster, upscaling, progress=progress)

        if self.seeds == 1:
            return make(seed, progress), None
        return over_seeds(make, range(seed, seed + self.seeds), progress=progress)
