"""Plans jobs: which result to make from which picture, under which name, checked in advance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from cascade.bulk.inputs import InputPicture
from cascade.errors import OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.picture_writing import FORMAT_OF_SUFFIX

ImageFormat = Literal["png", "jpeg", "webp", "tiff"]
COMPARISONS = "compare"  # the folder of the before/after sheets


@dataclass(frozen=True)
class Job:
    """One result to make.

    Attributes:
        source: the picture to make it from.
        output: the file to write.
        key: path of `output` below the folder of the results; no two jobs have the same.
        seed: whole number that decides the noise.
        sheet: the before/after sheet to write beside it; None for no sheet.
    """

    source: InputPicture
    output: Path
    key: str
    seed: int
    sheet: Path | None = None


@dataclass(frozen=True)
class VariantSheet:
    """A sheet that shows one picture with several seeds.

    Attributes:
        jobs: the jobs that make the results on it, in order.
        path: the file to write.
    """

    jobs: Sequence[Job]
    path: Path


def is_file_name(out: Path, inputs: Sequence[str]) -> bool:
    """Whether `out` names the file of a single result, and not a folder for all results.

    Raises:
        OutputError: if it names a file but cannot be one.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES or out.is_dir():
        return False
    if len(inputs) > 1 or not os.path.isfile(inputs[0]) or inputs[0].endswith(".tar"):
        raise OutputError(
            f"{out} names one picture, but there may be several inputs; name a folder instead."
        )
    if out.suffix.lower() not in FORMAT_OF_SUFFIX:
        suffixes = ", ".join(FORMAT_OF_SUFFIX)
        raise OutputError(f"{out}: results end in {suffixes}; choose one of them.")
    return True


def plan_jobs(
    pictures: Sequence[InputPicture],
    out: Path,
    *,
    as_file: bool = False,
    image_format: ImageFormat | None = None,
    seeds: Sequence[int] = (0,),
    compare: bool = False,
) -> tuple[list[Job], list[VariantSheet]]:
    """List the results to make.

    A result keeps the name and format of its input, except that GIF, BMP and unknown suffixes
    become PNG.

    Args:
        pictures: the inputs.
        out: folder of the results, or the file of a single result.
        as_file: whether `out` is that file.
        image_format: file format of all results; None keeps the formats of the inputs.
        seeds: whole numbers; each picture gets one result per seed. Several seeds give
            `NAME-seed0.png` and so on, and a sheet `NAME-variants.png`.
        compare: whether to write before/after sheets.

    Returns:
        The jobs, and the sheets of variants.

    Raises:
        OutputError: if two results would have the same name, or a result would replace an input.
    """
    if as_file and image_format not in (None, FORMAT_OF_SUFFIX[out.suffix.lower()]):
        raise OutputError(f"{out} is not the name of a {image_format} file; change one of the two.")
    folder = out.parent if as_file else out
    jobs: list[Job] = []
    sheets: list[VariantSheet] = []
    for picture in pictures:
        place = PurePosixPath(out.name) if as_file else _result_place(picture.place, image_format)
        of_picture = _jobs_of(picture, folder, place, seeds, compare)
        if len(seeds) > 1:
            sheet = folder / _renamed(place, "variants").with_suffix(".png")
            sheets.append(VariantSheet(of_picture, sheet))
        jobs += of_picture
    _check_paths_differ(jobs, sheets)
    return jobs, sheets


def _jobs_of(
    picture: InputPicture, folder: Path, place: PurePosixPath, seeds: Sequence[int], compare: bool
) -> list[Job]:
    jobs = []
    for seed in seeds:
        own = place if len(seeds) == 1 else _renamed(place, f"seed{seed}")
        sheet = folder / COMPARISONS / f"{own}.jpg" if compare else None
        jobs.append(Job(picture, folder / own, own.as_posix(), seed, sheet))
    return jobs


def _renamed(place: PurePosixPath, ending: str) -> PurePosixPath:
    return place.with_name(f"{place.stem}-{ending}{place.suffix}")


def _result_place(place: PurePosixPath, image_format: ImageFormat | None) -> PurePosixPath:
    """The place of an input with the suffix that its result has."""
    suffix = place.suffix.lower()
    if suffix in FORMAT_OF_SUFFIX and image_format in (None, FORMAT_OF_SUFFIX[suffix]):
        return place
    if image_format is not None:
        return place.with_suffix(next(s for s, f in FORMAT_OF_SUFFIX.items() if f == image_format))
    if suffix in IMAGE_SUFFIXES:
        return place.with_suffix(".png")
    return place.with_name(f"{place.name}.png")


def _check_paths_differ(jobs: Sequence[Job], sheets: Sequence[VariantSheet]) -> None:
    """Check that no result or sheet would overwrite another one or an input."""
    outputs = [(job.output, job.source.name) for job in jobs]
    outputs += [(job.sheet, job.source.name) for job in jobs if job.sheet is not None]
    outputs += [(sheet.path, sheet.jobs[0].source.name) for sheet in sheets]
    owners: dict[Path, str] = {}
    for path, name in outputs:
        owner = owners.setdefault(path, name)
        if owner != name:
            raise OutputError(
                f"{owner} and {name} would both be written to {path}; rename one, name a folder "
                "above them, or run the command once for each."
            )
    inputs = {_file_id(job.source.file): job.source.file for job in jobs}
    for path in owners:
        same = inputs.get(_file_id(path))
        if same is not None and os.path.exists(path):
            raise OutputError(f"{path} is the input {same} itself; choose another place for it.")


def _file_id(path: Path) -> tuple[int, int] | None:
    """Device and inode, which all names of a file share; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
