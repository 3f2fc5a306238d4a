"""What is to be made of which picture, and under which name; checked before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from cascade.bulk.inputs import InputPicture
from cascade.errors import OutputError
from cascade.imaging.picture_writing import FORMAT_OF_SUFFIX
from cascade.imaging.reading import IMAGE_SUFFIXES

ImageFormat = Literal["png", "jpeg", "webp", "tiff"]
SHEETS = "compare"


@dataclass(frozen=True)
class Job:
    """One result to make.

    Attributes:
        source: the picture that it is made from.
        output: the file to write.
        key: `output` below the folder of the results, which names the job.
        seed: to make it with.
        sheet: the before/after sheet to write beside it, if one is wanted.
    """

    source: InputPicture
    output: Path
    key: str
    seed: int
    sheet: Path | None = None


@dataclass(frozen=True)
class Variants:
    """Results of one picture with several seeds, to be shown on one sheet.

    Attributes:
        jobs: that make them.
        sheet: the file to write.
    """

    jobs: Sequence[Job]
    sheet: Path


def is_file_name(out: Path, inputs: Sequence[str]) -> bool:
    """Whether `out` names the one result, and not a folder for all.

    Raises:
        OutputError: if it is a name of a picture, but that cannot be.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES or out.is_dir():
        return False
    if len(inputs) > 1 or not os.path.isfile(inputs[0]) or inputs[0].endswith(".tar"):
        raise OutputError(
            f"{out} names one picture, but the inputs may be many; give the name of a folder."
        )
    if out.suffix.lower() not in FORMAT_OF_SUFFIX:
        known = ", ".join(FORMAT_OF_SUFFIX)
        raise OutputError(f"{out}: results end in {known}; choose one of them.")
    return True


def plan_jobs(
    pictures: Sequence[InputPicture],
    out: Path,
    *,
    as_file: bool = False,
    image_format: ImageFormat | None = None,
    seeds: Sequence[int] = (0,),
    compare: bool = False,
) -> tuple[list[Job], list[Variants]]:
    """Say what to make.

    A result has the name and the format of its input, GIF, BMP and unknown suffixes excepted, which
    become PNG.

    Args:
        pictures: to work on.
        out: folder of the results, or the file of the only one.
        as_file: whether it is the file.
        image_format: of all results; default: as described.
        seeds: to make each picture with; several give `NAME-seed0.png` and so on, and the sheet
            `NAME-variants.png`.
        compare: whether before/after sheets are wanted too.

    Returns:
        The jobs, and the sheets of variants.

    Raises:
        OutputError: if two results would have the same name, or one that of an input.
    """
    if as_file and image_format not in (None, FORMAT_OF_SUFFIX[out.suffix.lower()]):
        raise OutputError(f"{out} is not the name of a {image_format} file; change one of the two.")
    folder = out.parent if as_file else out
    jobs, variants = [], []
    for picture in pictures:
        place = PurePosixPath(out.name) if as_file else _place(picture.place, image_format)
        places = [place if len(seeds) == 1 else _renamed(place, f"seed{seed}") for seed in seeds]
        own = [
            _job(picture, folder, each, seed, compare)
            for each, seed in zip(places, seeds, strict=True)
        ]
        if len(seeds) > 1:
            sheet = folder / _renamed(place, "variants").with_suffix(".png")
            variants.append(Variants(own, sheet))
        jobs += own
    _check_apart(jobs, variants)
    return jobs, variants


def _job(
    picture: InputPicture, folder: Path, place: PurePosixPath, seed: int, compare: bool
) -> Job:
    sheet = folder / SHEETS / f"{place}.jpg" if compare else None
    return Job(picture, folder / place, place.as_posix(), seed, sheet)


def _renamed(place: PurePosixPath, ending: str) -> PurePosixPath:
    return place.with_name(f"{place.stem}-{ending}{place.suffix}")


def _place(place: PurePosixPath, image_format: ImageFormat | None) -> PurePosixPath:
    """With the suffix that the result has."""
    suffix = place.suffix.lower()
    if suffix in FORMAT_OF_SUFFIX and image_format in (None, FORMAT_OF_SUFFIX[suffix]):
        return place
    if image_format is not None:
        return place.with_suffix(next(s for s, f in FORMAT_OF_SUFFIX.items() if f == image_format))
    if suffix in IMAGE_SUFFIXES:
        return place.with_suffix(".png")
    return place.with_name(f"{place.name}.png")


def _check_apart(jobs: Sequence[Job], variants: Sequence[Variants]) -> None:
    """Check that no result or sheet takes the place of another or of an input."""
    written = [(job.output, job.source.name) for job in jobs]
    written += [(job.sheet, job.source.name) for job in jobs if job.sheet is not None]
    written += [(each.sheet, each.jobs[0].source.name) for each in variants]
    owners: dict[Path, str] = {}
    for path, name in written:
        other = owners.setdefault(path, name)
        if other != name:
            raise OutputError(
                f"{other} and {name} would both be written to {path}; rename one, name a "
                "folder above them, or work on them apart."
            )
    inputs = {_on_disk(job.source.file): job.source.file for job in jobs}
    for path in owners:
        same = inputs.get(_on_disk(path))
        if same is not None and os.path.exists(path):
            raise OutputError(f"{path} is the input {same} itself; choose another --out.")


def _on_disk(path: Path) -> tuple[int, int] | None:
    """What two names of one file have in common, whatever links lead to it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
