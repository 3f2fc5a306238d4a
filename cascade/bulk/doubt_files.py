"""Writes the doubt about a result beside it: in false colours, and as numbers.

The doubt is the standard deviation over seeds, or the error that it lets expect (`ExpectedError`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from cascade.bulk.jobs import Job
from cascade.bulk.sheets import Provenance, check_sheet, date_after, save_sheet
from cascade.errors import OutputError
from cascade.imaging.opening import read_bytes
from cascade.imaging.picture import Picture
from cascade.imaging.picture_reading import file_facts
from cascade.imaging.rasters.deviation_picture import Panel, deviation_picture
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.showing import shown_bands
from cascade.imaging.rasters.writing import write_rasters
from cascade.restoration.expected_error import ExpectedError
from cascade.sampling.canvas import new_canvas
from cascade.space import Space

ROWS = 1024  # that are worked on at a time


def check_doubt_files(job: Job, *, overwrite: bool) -> None:
    """Check before the long work that no file of somebody else would be replaced.

    Raises:
        OutputError: naming the file that would.
    """
    if job.doubt is None:
        return
    check_sheet(job.doubt.picture)
    numbers = job.doubt.numbers
    if numbers.exists() and not job.doubt.picture.exists() and not overwrite:
        raise OutputError(f"{numbers} already exists; move it away or allow overwriting.")


def write_picture_doubt(
    job: Job,
    words: str,
    first: Picture,
    stds: Sequence[Tensor],
    pages: int,
    mark: FileMark | None,
) -> None:
    """Write the standard deviation of a colour picture.

    Its picture shows the root mean square over the channels, of the first page. It is written
    first, because only its mark tells that both files are Cascade's (`check_doubt_files`).

    Args:
        job: the job, whose result exists.
        words: what the numbers are; see `words_of`.
        first: the first page of the result.
        stds: (C, H, W) for each page, in levels; for 8 bits the first one suffices.
        pages: number of pages of the result.
        mark: how the result was made; None without metadata.
    """
    assert job.doubt is not None
    values = _over_channels(stds[0]).numpy()
    caption = _caption(words, "first page" if pages > 1 else "")
    panel = Panel(values=values, caption=caption, unit=f"levels of {2**first.bits - 1}")
    save_sheet(deviation_picture([panel]), job.doubt.picture, provenance=_provenance(mark))
    date_after(job.doubt.picture, [job.output])
    if first.bits == 16:
        numbers = [Raster(values=std.numpy()) for std in stds]
        write_rasters(job.doubt.numbers, numbers, pages, description=words, mark=mark)
        date_after(job.doubt.numbers, [job.output])


def has_numbers(result: Path) -> bool:
    """Whether the doubt about a colour picture is also written as numbers: if it has 16 bits.

    Raises:
        DataError: if the result is not a readable picture.
    """
    return file_facts(read_bytes(result), str(result)).bits == 16


def write_band_doubt(
    job: Job, words: str, stds: Sequence[Raster], space: Space, mark: FileMark | None
) -> None:
    """Write the standard deviation of a file of bands.

    Its picture shows the bands that people see (`Space.show`), of the first image. It is written
    first, because only its mark tells that both files are Cascade's (`check_doubt_files`).

    Args:
        job: the job.
        words: what the numbers are; see `words_of`.
        stds: of each image of the file.
        space: space of the results.
        mark: how the result was made; None without metadata.
    """
    assert job.doubt is not None
    which = "first image" if len(stds) > 1 else ""
    panels = [
        Panel(
            values=stds[0].values[band - 1],
            caption=_caption(words, f"band {band}" if space.channels > 1 else "", which),
            unit=space.unit,
        )
        for band in shown_bands(space)
    ]
    save_sheet(deviation_picture(panels), job.doubt.picture, provenance=_provenance(mark))
    write_rasters(job.doubt.numbers, _alike(stds), len(stds), description=words, mark=mark)


def mark_doubt_as_new(job: Job, result: Path) -> None:
    """Set the time of a standard deviation that was written before its result.

    Otherwise it would look older than the result.

    Args:
        job: the job.
        result: the complete result, which has a name of its own until it is moved into place.
    """
    assert job.doubt is not None
    date_after(job.doubt.picture, [result])
    date_after(job.doubt.numbers, [result])


def _provenance(mark: FileMark | None) -> Provenance | None:
    if mark is None:
        return None
    return Provenance(settings=mark.settings, xmp=mark.packet, is_of_one=True)


def _over_channels(std: Tensor) -> Tensor:
    """The root mean square over the channels of (C, H, W): (H, W)."""
    values = new_canvas(std.shape[1:])
    for first in range(0, len(values), ROWS):
        rows = slice(first, first + ROWS)
        values[rows] = std[:, rows].square().mean(dim=0).sqrt()
    return values


def _alike(stds: Sequence[Raster]) -> list[Raster]:
    """Images of one file, which states the same number for missing ones for all."""
    nodata = np.nan if any(std.nodata is not None for std in stds) else None
    return [Raster(values=std.values, nodata=nodata, origin=std.origin) for std in stds]


def words_of(seeds: int, expected: ExpectedError | None) -> str:
    """What the numbers of a doubt are."""
    if expected is None:
        return f"standard deviation over {seeds} seeds, not an error"
    return f"expected error (measured on {expected.pictures} images), {seeds} seeds"


def _caption(words: str, *parts: str) -> str:
    return ", ".join([words, *filter(None, parts)])
