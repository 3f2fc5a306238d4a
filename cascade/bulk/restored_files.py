"""Restores files whose images are bands of measured numbers before or after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from cascade.bulk.band_files import BandFiles
from cascade.bulk.jobs import Job
from cascade.bulk.method import JobProgress, RecordOf
from cascade.bulk.records import Record
from cascade.bulk.request import Request
from cascade.errors import ContractError
from cascade.imaging.marks import says_generated
from cascade.imaging.metadata import Metadata
from cascade.imaging.pages import Pages
from cascade.imaging.picture import Picture, quantised
from cascade.imaging.picture_reading import count_pages, decode_picture
from cascade.imaging.picture_writing import check_format, write_picture
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import open_rasters
from cascade.imaging.rasters.writing import check_raster_format, write_rasters
from cascade.restoration.bands import ClippedNumbers, check_bands, raster_of
from cascade.restoration.expected_error import ExpectedError
from cascade.restoration.restoring import (
    Restoration,
    input_space_of,
    restore_image,
    restore_raster,
)
from cascade.sampling.walk import Progress
from cascade.space import Space
from cascade.stage import Stage

COLOUR_BITS = 8  # of colour pictures that are made from bands


@final
@dataclass(frozen=True, kw_only=True)
class RestoredFiles:
    """Restores files of bands, makes colour pictures from them, or makes them from such pictures.

    Attributes:
        stage: the stage that was trained on pairs.
        restoration: how to restore each image.
        request: the user's request.
        expected: what the standard deviation over seeds says about errors; None if it is not known.
    """

    stage: Stage
    restoration: Restoration
    request: Request
    expected: ExpectedError | None = None

    @property
    def layout(self) -> Layout | None:
        """How files of results are divided into images; None if they are colour pictures."""
        space = self.stage.space
        if not space.has_bands:
            return None
        return Layout(space.channels, self.request.of_bands()["axis"])

    def make(
        self,
        job: Job,
        path: Path,
        record_of: RecordOf,
        progress: JobProgress,
        on_remark: Callable[[str], None],
    ) -> Record:
        """Make the result of a job and write it; see `BandFiles.make`."""
        space = input_space_of(self.stage)
        if (files := self._band_files(space)) is not None:
            return files.make(job, path, record_of, progress, on_remark)
        self._refuse_map()
        if space.has_bands:
            return self._picture_from_bands(
                job, path, space, record_of, _report(progress), on_remark
            )
        return self._bands_from_picture(job, path, record_of, progress, on_remark)

    def check(self, job: Job) -> tuple[tuple[int, int], int]:
        """Check, without drawing, that the result of a job can be made; see `BandFiles.check`."""
        space = input_space_of(self.stage)
        if (files := self._band_files(space)) is not None:
            return files.check(job)
        self._refuse_map()
        if space.has_bands:
            return self._only_raster(job, space).size, 1
        count, pictures = self._pictures(job)
        sizes = [picture.size for picture in pictures]
        self._check_format(job, count)
        return sizes[0], count

    def _band_files(self, space: Space) -> BandFiles | None:
        """What makes bands from bands of a space; None if one of them are colour pictures."""
        if not (space.has_bands and self.stage.space.has_bands):
            return None
        return BandFiles(
            restore=self._restored,
            space=space,
            result_space=self.stage.space,
            expected=self.expected,
            **self.request.of_bands(),
        )

    def _refuse_map(self) -> None:
        if self.request.map:
            raise ContractError(
                "a standard deviation needs a model whose results are of the same kind as its "
                "inputs: colour images or bands."
            )

    def _pictures(self, job: Job) -> tuple[int, Iterator[Picture]]:
        """The number of pages of a job, and each page."""
        data, name = job.source.read_bytes(), job.source.name
        count = 1 if job.pages == "first" else count_pages(data, name)
        if count > 1:
            return count, (page.picture for page in Pages(data, name))
        return 1, iter([decode_picture(data, name, truncated=self.request.truncated)])

    def _check_format(self, job: Job, count: int) -> None:
        """Check before the long work that the file can hold as many images of bands."""
        space = self.stage.space
        blank = torch.zeros(space.channels, 1, 1)
        check_raster_format(job.output, raster_of(blank, space), count)

    def _bands_from_picture(
        self,
        job: Job,
        path: Path,
        record_of: RecordOf,
        progress: JobProgress,
        on_remark: Callable[[str], None],
    ) -> Record:
        count, pictures = self._pictures(job)
        picture = next(pictures)
        is_generated = says_generated(picture.metadata.xmp)
        every = itertools.chain([picture], pictures)
        results = self._bands_of(every, job, count, progress, on_remark)
        first = next(results)
        record, mark = record_of(first.size, count), None
        if self.request.metadata:
            mark = FileMark.of_result(record.to_json(), is_generated=is_generated)
        write_rasters(path, itertools.chain([first], results), count, mark=mark)
        return record

    def _bands_of(
        self,
        pictures: Iterable[Picture],
        job: Job,
        count: int,
        progress: JobProgress,
        on_remark: Callable[[str], None],
    ) -> Iterator[Raster]:
        """The result of each page; remarks are about the first."""
        for number, picture in enumerate(pictures):
            if number == 0:
                self._check_format(job, count)
                for remark in _remarks(picture):
                    on_remark(remark)
            report = _report(progress, number, count)
            result = self._restored_image(picture.in_srgb().image(), job, report)
            yield raster_of(result, self.stage.space)

    def _picture_from_bands(
        self,
        job: Job,
        path: Path,
        space: Space,
        record_of: RecordOf,
        progress: Progress,
        on_remark: Callable[[str], None],
    ) -> Record:
        raster = self._only_raster(job, space)
        clipped = ClippedNumbers(space)
        clipped.add(raster)
        if clipped.remark:
            on_remark(clipped.remark)
        result = self._restored_image(raster.unit_image(space, clip=True), job, progress)
        record = record_of(raster.size, 1)
        is_generated = raster.origin is not None and raster.origin.is_generated
        mark = FileMark.of_result(record.to_json(), is_generated=is_generated)
        write_picture(
            Picture(
                colour=quantised(result, COLOUR_BITS),
                bits=COLOUR_BITS,
                metadata=Metadata(xmp=mark.packet),
            ),
            path,
            settings=mark.settings,
            metadata=self.request.metadata,
        )
        return record

    def _only_raster(self, job: Job, space: Space) -> Raster:
        """The image of bands that a colour picture is to be made from, and stored in its file."""
        layout = Layout(space.channels, self.request.of_bands()["axis"])
        with job.source.open() as stream:
            file = open_rasters(stream, job.source.name, layout)
            if job.pages != "first" and len(file) > 1:
                raise ContractError(
                    f"the file holds {len(file)} images, but a colour image is one; save them as "
                    "separate files, or take the first alone."
                )
            raster = file.image(0).with_nodata(self.request.nodata)
        check_bands(raster, space)
        check_format(job.output, size=raster.size, bits=COLOUR_BITS, has_alpha=False)
        return raster

    def _restored(self, raster: Raster, seed: int, progress: Progress) -> Raster:
        restoration = replace(self.restoration, seed=seed)
        return restore_raster([self.stage], raster, restoration, progress=progress)

    def _restored_image(self, image: Tensor, job: Job, progress: Progress) -> Tensor:
        restoration = replace(self.restoration, seed=job.seed)
        return restore_image([self.stage], image, restoration, progress=progress)


def _remarks(picture: Picture) -> Iterator[str]:
    """What the user should know about a picture that bands are made from."""
    if picture.is_truncated:
        yield "is truncated; the missing part counts as grey"
    if picture.alpha is not None:
        yield "is transparent in places, which the result does not keep"


def _report(progress: JobProgress, number: int = 0, count: int = 1) -> Progress:
    """Convert the progress of one of the pages of a picture to that of its job."""
    words = f"page {number + 1} of {count}" if count > 1 else ""

    def report(done: int, total: int) -> None:
        progress((number + done / total) / count, words)

    return report
