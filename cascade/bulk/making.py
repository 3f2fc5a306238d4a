"""Does one job: reads the input, makes and writes the result with its record, draws a sheet."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.bulk.jobs import Job, VariantSheet
from cascade.bulk.records import Record
from cascade.bulk.sheets import Before, write_comparison, write_variants
from cascade.errors import OutputError
from cascade.imaging.metadata import Loss
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.picture_writing import (
    check_exif,
    check_format,
    lost_metadata,
    write_picture,
)

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
PartProgress = Callable[[int, int], None]  # (done, total), in parts of one picture


class DiskError(OutputError):
    """The disk is full or gone, so that no result can be written."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to make the result of a picture.

    Attributes:
        command: `upscale` or `colourise`.
        description: what was done to a picture, for messages, such as `upscaled`.
        make: makes a result from a picture, a seed and a callback for progress.
        work: the work that a picture of this height and width in pixels takes, in any unit.
        remark: what the user should know about a picture, to follow its name; empty for nothing.
        settings: settings to record, without the seed; anything that JSON can hold.
        metadata: whether to write the record, EXIF and resolution into the results.
        overwrite: whether existing files that differ from the results may be replaced.
        factor: factor by which the sides of a picture grow.
        before: what the left side of a before/after sheet shows, see `write_comparison`.
    """

    command: str
    description: str
    make: Callable[[Picture, int, PartProgress], Picture]
    settings: Mapping[str, Any]
    work: Callable[[tuple[int, int]], float]
    remark: Callable[[Picture], str] = lambda picture: ""
    metadata: bool = True
    overwrite: bool = False
    factor: float = 1.0
    before: Before = "bicubic"

    def settings_of(self, job: Job) -> dict[str, Any]:
        """The settings of a job, including its seed."""
        return {**self.settings, "seed": job.seed}


def make_result(
    job: Job, method: Method, progress: PartProgress, on_remark: Callable[[str], None]
) -> tuple[Record, tuple[Loss, ...]]:
    """Make the result of a job and write it.

    Args:
        job: the job.
        method: how to make its result.
        progress: called as `progress(done, total)` in parts of the picture.
        on_remark: called with what the user should know about the picture, if there is anything.

    Returns:
        The record of the result, and what it does not keep of the input's metadata.

    Raises:
        DiskError: if no further result can be written.
        CascadeError: if this result cannot be made.
    """
    sha256 = job.source.sha256()
    picture = job.source.read()
    _check_format_holds_result(picture, job.output, method)
    if remark := method.remark(picture):
        on_remark(remark)
    result = method.make(picture, job.seed, progress)
    record = Record(settings=method.settings_of(job), input_sha256=sha256, size_px=result.size)
    try:
        write_picture(result, job.output, settings=record.to_json(), metadata=method.metadata)
    except OutputError as error:
        if _disk_is_full(error, result, job.output.parent):
            raise DiskError(str(error)) from error
        raise
    return record, lost_metadata(result, job.output, metadata=method.metadata)


def lacks_sheet(job: Job) -> bool:
    """Whether the before/after sheet of a job is missing, or older than its result."""
    return job.sheet is not None and _is_older(job.sheet, job.output)


def write_sheet(job: Job, method: Method) -> None:
    """Write the before/after sheet of a job whose result exists.

    Raises:
        CascadeError: if it cannot be made.
    """
    assert job.sheet is not None
    caption = f"{method.settings['model']}, seed {job.seed}"
    source, result = job.source.read(), read_picture(job.output)
    write_comparison(source, result, job.sheet, before=method.before, caption=caption)


def lacks_variants(sheet: VariantSheet) -> bool:
    """Whether a sheet of variants is missing, or older than one of its results."""
    return any(_is_older(sheet.path, job.output) for job in sheet.jobs)


def write_variant_sheet(sheet: VariantSheet) -> None:
    """Write a sheet of variants whose results all exist.

    Raises:
        CascadeError: if it cannot be made.
    """
    write_variants(
        [(f"seed {job.seed}", read_picture(job.output)) for job in sheet.jobs], sheet.path
    )


def _check_format_holds_result(picture: Picture, path: Path, method: Method) -> None:
    """Check before the long work that the file format can store the result of a picture."""
    height, width = (round(side * method.factor) for side in picture.size)
    has_alpha = picture.alpha is not None
    check_format(path, size=(height, width), bits=picture.bits, has_alpha=has_alpha)
    if method.metadata:
        check_exif(path, picture.metadata.exif)


def _disk_is_full(error: OutputError, picture: Picture, folder: Path) -> bool:
    """Whether all further pictures would fail as this one did."""
    if isinstance(error.__cause__, OSError):
        return error.__cause__.errno in DISK_ERRORS
    copies = 2  # while a file is written, there are its pixels and the whole file
    size_bytes = copies * picture.colour.nbytes
    return folder.is_dir() and shutil.disk_usage(folder).free < size_bytes


def _is_older(path: Path, other: Path) -> bool:
    """Whether a file is missing, or older than another one."""
    try:
        return path.stat().st_mtime_ns < other.stat().st_mtime_ns
    except OSError:
        return True
