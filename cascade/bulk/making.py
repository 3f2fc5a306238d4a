"""Does one job: reads the input, makes and writes the result with its record, draws a sheet."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from cascade.bulk.doubt_files import check_doubt_files, words_of, write_picture_doubt
from cascade.bulk.jobs import Job, VariantSheet
from cascade.bulk.method import JobProgress, Method
from cascade.bulk.records import Record
from cascade.bulk.sheets import date_after, is_older, write_comparison, write_variants
from cascade.errors import CascadeError, OutputError
from cascade.imaging.marks import says_generated
from cascade.imaging.metadata import Loss
from cascade.imaging.opening import read_bytes
from cascade.imaging.page_writing import pages_writer
from cascade.imaging.pages import Pages
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import count_pages, decode_picture, read_picture
from cascade.imaging.picture_writing import (
    check_exif,
    check_format,
    lost_metadata,
    write_picture,
)
from cascade.imaging.rasters.file_mark import FileMark
from cascade.saving.atomic import move_into_place, scratch_folder

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
OnWritten = Callable[[Record, Path], None]


class DiskError(OutputError):
    """The disk is full or gone, so that no result can be written."""


def make_result(
    job: Job,
    method: Method,
    progress: JobProgress,
    on_remark: Callable[[str], None],
    drawn: Mapping[tuple[str, int], Picture],
    on_written: OnWritten,
) -> tuple[Record, tuple[Loss, ...]]:
    """Make the result of a job and write it.

    Args:
        job: the job.
        method: how to make its result.
        progress: called as `progress(part, page)`, with the share of the job that is done, in
            [0, 1], and such words as `page 3 of 40`, which are empty if there is one page.
        on_remark: called with what the user should know about the picture, if there is anything;
            of several pages, about the first.
        drawn: results that were drawn before, by the SHA-256 of the input and the seed.
        on_written: called with the record of a result that cannot hold it, and the complete file,
            before that gets its name.

    Returns:
        The record of the result, and what it does not keep of the input's metadata.

    Raises:
        DiskError: if no further result can be written.
        UnsuitableError: if the picture is to be left out.
        CascadeError: if this result cannot be made.
    """
    sha256 = job.source.sha256()
    check_doubt_files(job, overwrite=method.overwrite)
    if method.make_file is not None:
        with disk_errors(0, job.output.parent), scratch_folder(job.output) as folder:
            file = folder / job.output.name

            def record_of(size_px: tuple[int, int], images: int) -> Record:
                settings = method.settings_of(job)
                return Record(settings=settings, input_sha256=sha256, size_px=size_px, pages=images)

            record = method.make_file(job, file, record_of, progress, on_remark)
            on_written(record, file)
            move_into_place(file, job.output)
        return record, ()
    data = job.source.read_bytes()
    if job.pages == "all" and count_pages(data, job.source.name) > 1:
        pages = Pages(data, job.source.name)
        return _make_pages(job, method, pages, sha256, progress, on_remark)
    picture = decode_picture(data, job.source.name, truncated=method.truncated)
    method.check_suits(job, picture)
    method.check(picture)
    if picture.is_truncated:
        on_remark("is truncated; the missing part is grey in the result")
    check_format_holds_result(picture, job.output, method)
    if remark := method.remark(picture):
        on_remark(remark)
    result, std = drawn.get((sha256, job.seed)), None
    if result is None:
        result, std = method.result_of(
            picture, job.seed, lambda done, total: progress(done / total, "")
        )
    record = Record(settings=method.settings_of(job), input_sha256=sha256, size_px=result.size)
    extras = {"metadata": method.metadata, "signer": method.signer}
    with disk_errors(result.colour.nbytes, job.output.parent):
        write_picture(result, job.output, settings=record.to_json(), **extras)
        if std is not None:
            words, mark = words_of(method.seeds, method.expected), _mark(record, result, method)
            write_picture_doubt(job, words, result, [std], 1, mark)
    return record, lost_metadata(result, job.output, metadata=method.metadata)


def _make_pages(
    job: Job,
    method: Method,
    pages: Pages,
    sha256: str,
    progress: JobProgress,
    on_remark: Callable[[str], None],
) -> tuple[Record, tuple[Loss, ...]]:
    """Make and write a result of several pages. All share one seed, and so one field of noise."""
    pixel_bytes = check_format_holds_pages(pages, job.output, method)
    plays, folder = pages.plays if pages.is_animation else None, job.output.parent
    record = Record(
        settings=method.settings_of(job), input_sha256=sha256, size_px=(0, 0), pages=len(pages)
    )
    stds: list[Tensor] = []
    with pages_writer(
        job.output,
        plays=plays,
        pixel_bytes=pixel_bytes,
        metadata=method.metadata,
        signer=method.signer,
    ) as writer:
        for number, page in enumerate(pages):
            if number == 0:
                method.check_suits(job, page.picture)
            if number == 0 and (remark := method.remark(page.picture)):
                on_remark(remark)
            result, std = _made_page(page.picture, number, pages, method, job.seed, progress)
            if number == 0:
                record, first = replace(record, size_px=result.size), result
            if std is not None and (number == 0 or result.bits == 16):
                stds.append(std)
            with disk_errors(result.colour.nbytes, folder):
                writer.add(replace(page, picture=result))
        with disk_errors(result.colour.nbytes, folder):
            writer.finish(record.to_json())
            if stds:
                words = words_of(method.seeds, method.expected)
                mark = _mark(record, first, method)
                write_picture_doubt(job, words, first, stds, len(stds), mark)
    return record, writer.losses


def _mark(record: Record, result: Picture, method: Method) -> FileMark | None:
    """The mark of what is written beside a result; None without metadata."""
    if not method.metadata:
        return None
    is_generated = says_generated(result.metadata.xmp)
    return FileMark.of_result(record.to_json(), is_generated=is_generated)


def _made_page(
    picture: Picture, number: int, pages: Pages, method: Method, seed: int, progress: JobProgress
) -> tuple[Picture, Tensor | None]:
    """The result and the standard deviation of a page."""
    works = [method.work(size) for size in pages.sizes]
    start, whole = sum(works[:number]), sum(works)

    def report(done: int, total: int) -> None:
        share = (start + works[number] * done / total) / whole
        progress(share, f"{_noun(pages)} {number + 1} of {len(pages)}")

    with named_page(number, pages):
        method.check(picture)
        return method.result_of(picture, seed, report)


@contextmanager
def named_page(number: int, pages: Pages) -> Iterator[None]:
    """A block whose errors name a page, which is counted from 1 in them."""
    try:
        yield
    except CascadeError as error:
        raise type(error)(f"{_noun(pages)} {number + 1}: {error}") from error


def _noun(pages: Pages) -> str:
    return "frame" if pages.is_animation else "page"


def lacks_sheet(job: Job) -> bool:
    """Whether the before/after sheet of a job is missing, or older than its result."""
    return job.sheet is not None and is_older(job.sheet, job.output)


def write_sheet(job: Job, method: Method) -> None:
    """Write the before/after sheet of a job whose result exists; of several pages, the first.

    Raises:
        CascadeError: if it cannot be made.
    """
    assert job.sheet is not None
    last = job.seed + method.seeds - 1
    seeds = f"seed {job.seed}" if method.seeds == 1 else f"mean of seeds {job.seed} to {last}"
    caption = f"{method.settings['model']}, {seeds}"
    data, name = read_bytes(job.output), str(job.output)
    if (pages := count_pages(data, name)) > 1:
        caption = f"{caption}, the first of {pages} pages"
    source, result = job.source.read(method.truncated), decode_picture(data, name)
    write_comparison(
        source,
        result,
        job.sheet,
        before=method.before,
        caption=caption,
        provenance=method.provenance_of(result),
    )
    date_after(job.sheet, [job.output])


def lacks_variants(sheet: VariantSheet) -> bool:
    """Whether a sheet of variants is missing, or older than one of its results."""
    return any(is_older(sheet.path, job.output) for job in sheet.jobs)


def write_variant_sheet(sheet: VariantSheet, method: Method) -> None:
    """Write a sheet of variants whose results all exist.

    Raises:
        CascadeError: if it cannot be made.
    """
    variants = [(f"seed {job.seed}", read_picture(job.output)) for job in sheet.jobs]
    write_variants(variants, sheet.path, method.provenance_of(variants[0][1]))
    date_after(sheet.path, [job.output for job in sheet.jobs])


def check_format_holds_result(picture: Picture, path: Path, method: Method) -> None:
    """Check before the long work that the file format can store the result of a picture."""
    size, has_alpha = method.size_of_result(picture.size), picture.alpha is not None
    check_format(path, size=size, bits=picture.bits, has_alpha=has_alpha)
    if method.metadata:
        check_exif(path, picture.metadata.exif)


def check_format_holds_pages(pages: Pages, path: Path, method: Method) -> int:
    """Check before the long work that the file format can store all pages.

    Returns:
        How many bytes the pixels of all results have.
    """
    pixel_bytes = 0
    for size in pages.sizes:
        height, width = method.size_of_result(size)
        check_format(
            path,
            size=(height, width),
            bits=pages.bits,
            has_alpha=pages.has_alpha,
            pages=len(pages),
            is_animation=pages.is_animation,
        )
        pixel_bytes += height * width * (4 if pages.has_alpha else 3) * pages.bits // 8
    return pixel_bytes


@contextmanager
def disk_errors(pixel_bytes: int, folder: Path) -> Iterator[None]:
    """Raise a `DiskError` where a result of so many bytes cannot be written for lack of space."""
    try:
        yield
    except OutputError as error:
        if _disk_is_full(error, pixel_bytes, folder):
            raise DiskError(str(error)) from error
        raise


def _disk_is_full(error: OutputError, pixel_bytes: int, folder: Path) -> bool:
    """Whether all further pictures would fail as this one did."""
    if isinstance(error.__cause__, OSError):
        return error.__cause__.errno in DISK_ERRORS
    copies = 2  # while a file is written, there are its pixels and the whole file
    return folder.is_dir() and shutil.disk_usage(folder).free < copies * pixel_bytes
