"""Restores files whose images are bands of measured numbers before or after it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import final

from cascade.bulk.jobs import Job
from cascade.errors import CascadeError, ContractError
from cascade.imaging.picture import Picture, quantised
from cascade.imaging.picture_reading import decode_picture
from cascade.imaging.picture_writing import write_picture
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import count_rasters, decode_raster
from cascade.imaging.rasters.writing import check_raster_format, write_rasters
from cascade.restoration.bands import check_bands, clipped_remark, raster_of
from cascade.restoration.restoring import (
    Restoration,
    input_space_of,
    restore_image,
    restore_raster,
)
from cascade.sampling.walk import Progress
from cascade.stage import Stage

JobProgress = Callable[[float, str], None]  # share that is done, and which image it is
COLOUR_BITS = 8  # of colour pictures that are made from bands


@final
@dataclass(frozen=True, kw_only=True)
class RestoredFiles:
    """Restores files of bands, or makes files of bands from colour pictures.

    Attributes:
        stage: the stage that was trained on pairs.
        restoration: how to restore each image.
        axis: axis of a NIfTI volume along which it is cut into slices.
        nodata: the number that stands for a missing one; None for what a file says.
    """

    stage: Stage
    restoration: Restoration
    axis: int = 2
    nodata: float | None = None

    def make(
        self, job: Job, progress: JobProgress, on_remark: Callable[[str], None]
    ) -> tuple[tuple[int, int], int]:
        """Make the result of a job and write it. All images of a file share one seed.

        Args:
            job: the job.
            progress: called with the share of the job that is done and such words as
                `image 3 of 40`, which are empty if there is one image.
            on_remark: called with what the user should know about the first image.

        Returns:
            Height and width of the results in pixels, and their number.

        Raises:
            CascadeError: if the result cannot be made.
        """
        data, name = job.source.read_bytes(), job.source.name
        if not input_space_of(self.stage).has_bands:
            return self._from_picture(data, job, progress)
        space = input_space_of(self.stage)
        layout = Layout(space.channels, self.axis)
        count = 1 if job.pages == "first" else count_rasters(io.BytesIO(data), name, layout)
        first = self._raster(data, name, 0, layout)
        check_bands(first, space)
        if remark := clipped_remark(first, space):
            on_remark(remark)
        if self.stage.space.has_bands:
            check_raster_format(job.output, first, count)
            results = self._results(data, name, count, layout, job.seed, progress)
            result = next(results)
            write_rasters(job.output, chain([result], results), count)
            return result.size, count
        if count > 1:
            raise ContractError(
                f"the file holds {count} images, but a colour picture is one; save them as files "
                "of their own, or take the first alone."
            )
        image = first.unit_image(space).clamp(-1, 1)
        result = restore_image(
            [self.stage], image, self._restoration(job.seed), progress=_report(progress, 0, 1)
        )
        write_picture(Picture(colour=quantised(result, COLOUR_BITS), bits=COLOUR_BITS), job.output)
        return first.size, 1

    def _from_picture(
        self, data: bytes, job: Job, progress: JobProgress
    ) -> tuple[tuple[int, int], int]:
        picture = decode_picture(data, job.source.name).in_srgb()
        restoration, report = self._restoration(job.seed), _report(progress, 0, 1)
        result = restore_image([self.stage], picture.image(), restoration, progress=report)
        raster = raster_of(result, self.stage.space)
        write_rasters(job.output, [raster])
        return raster.size, 1

    def _results(
        self, data: bytes, name: str, count: int, layout: Layout, seed: int, progress: JobProgress
    ) -> Iterator[Raster]:
        for number in range(count):
            report = _report(progress, number, count)
            try:
                raster = self._raster(data, name, number, layout)
                restoration = self._restoration(seed)
                yield restore_raster([self.stage], raster, restoration, progress=report)
            except CascadeError as error:
                words = _words(number, count)
                raise type(error)(f"{words}: {error}" if words else str(error)) from error

    def _restoration(self, seed: int) -> Restoration:
        return replace(self.restoration, seed=seed)

    def _raster(self, data: bytes, name: str, number: int, layout: Layout) -> Raster:
        raster = decode_raster(data, name, number, layout)
        return raster if self.nodata is None else replace(raster, nodata=self.nodata)


def _words(number: int, count: int) -> str:
    return f"image {number + 1} of {count}" if count > 1 else ""


def _report(progress: JobProgress, number: int, count: int) -> Progress:
    """Convert the progress of one image of a file to that of the job."""

    def report(done: int, total: int) -> None:
        progress((number + done / total) / count, _words(number, count))

    return report
