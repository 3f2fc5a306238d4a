"""Plans jobs: which result to make from which picture, under which name, checked in advance."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from PIL import Image

from cascade.bulk.inputs import InputPicture
from cascade.bulk.names import IsResultOf, Naming, folding_of, with_ending, with_suffix_added
from cascade.bulk.progress import Note
from cascade.data.object_stores import StoredObject, without_query
from cascade.data.remote import is_remote, without_secrets
from cascade.errors import DataError, OutputError
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.imaging.picture_writing import FORMAT_OF_SUFFIX
from cascade.imaging.rasters.reading import suffix_of
from cascade.imaging.rasters.writing import KINDS as BAND_KINDS

if TYPE_CHECKING:
    from cascade.bulk.shards import ShardPlan

ImageFormat = Literal["png", "jpeg", "webp", "tiff"]
PageChoice = Literal["all", "first"]  # of the pages of a file, or the frames of an animation
KINDS_OF_FLOATS = ("TIFF", "numpy", "NIfTI")  # of files of bands
COMPARISONS = "compare"  # the folder of the before/after sheets


@dataclass(frozen=True)
class DoubtFiles:
    """Where the standard deviation over seeds is written.

    Attributes:
        picture: a picture in false colours.
        numbers: the numbers themselves, as floats; written for bands, and for pictures of 16 bits.
    """

    picture: Path
    numbers: Path


@dataclass(frozen=True)
class Job:
    """One result to make.

    Attributes:
        source: the picture to make it from.
        output: the file to write.
        key: path of `output` below the folder of the results; no two jobs have the same.
        seed: whole number that decides the noise.
        sheet: the before/after sheet to write beside it; None for no sheet.
        pages: "first" if the source has several pages and the first alone is worked on.
        doubt: files of the standard deviation over seeds; None if the result has one seed.
        shard: the shard of results that it goes into; None if it stays a file.
    """

    source: InputPicture
    output: Path
    key: str
    seed: int
    sheet: Path | None = None
    pages: PageChoice = "all"
    doubt: DoubtFiles | None = None
    shard: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files that are written for it, besides the sheet, in order; the result comes last."""
        beside = [] if self.doubt is None else [self.doubt.picture, self.doubt.numbers]
        return [*beside, self.output]

    @property
    def place_in_shard(self) -> str:
        """Colon and name of the result in its shard; empty if it stays a file."""
        if self.shard is None:
            return ""
        return f":{self.output.relative_to(work_folder(self.shard)).as_posix()}"


def work_folder(shard: Path) -> Path:
    """The folder of the results of a shard until it is packed."""
    return shard.with_name(f".{shard.name}.work")


@dataclass(frozen=True)
class VariantSheet:
    """A sheet that shows one picture with several seeds.

    Attributes:
        jobs: the jobs that make the results on it, in order.
        path: the file to write.
    """

    jobs: Sequence[Job]
    path: Path


@dataclass(frozen=True)
class Plan:
    """Everything to make.

    Attributes:
        jobs: the results.
        sheets: the sheets of variants.
        shards: the shards of results, whose jobs are among the others.
        page: folder of the before/after sheets, which gets a page with all of them; None for none.
        notes: what the user should know about names.
    """

    jobs: Sequence[Job] = ()
    sheets: Sequence[VariantSheet] = ()
    shards: Sequence[ShardPlan] = ()
    page: Path | None = None
    notes: Sequence[Note] = ()

    def files(self) -> list[tuple[Path, str]]:
        """All results and sheets, each with the name or the whole address of its input."""
        files = [(job.output, _address(job)) for job in self.jobs]
        files += [(shard.output, shard.source.name) for shard in self.shards]
        files += [(job.sheet, _address(job)) for job in self.jobs if job.sheet is not None]
        doubts = [(job.doubt, _address(job)) for job in self.jobs if job.doubt is not None]
        files += [(path, name) for each, name in doubts for path in (each.picture, each.numbers)]
        return files + [(sheet.path, _address(sheet.jobs[0])) for sheet in self.sheets]


def _address(job: Job) -> str:
    """The name of a job's picture, or its address with the query, which tells pictures apart."""
    image = job.source.image
    return image.address if isinstance(image, StoredObject) else job.source.name


def is_file_name(out: Path | str, inputs: Sequence[str], *, bands: bool = False) -> bool:
    """Whether `out` names the file of a single result, and not a folder for all results.

    Args:
        out: a file or a folder, or the address of one.
        inputs: names of the inputs.
        bands: whether results are files of bands.

    Raises:
        DataError: if an input does not exist.
        OutputError: if it names a file but cannot be one.
    """
    is_folder = isinstance(out, Path) and out.is_dir()
    name, out = PurePosixPath(out).name, without_secrets(str(out))
    is_known = bands and suffix_of(name) in BAND_KINDS
    if is_folder or not (is_known or _is_picture_name(name)):
        return False
    for text in inputs:
        if not (os.path.lexists(text) or glob.has_magic(text) or "{" in text or is_remote(text)):
            raise DataError(f"{text}: no such file or folder.")
    if not is_one_file(inputs) or inputs[0].endswith(".tar"):
        raise OutputError(
            f"{out} names one image, but there may be several inputs; name a folder instead."
        )
    endings = BAND_KINDS if bands else FORMAT_OF_SUFFIX
    if suffix_of(name) not in endings:
        suffixes = ", ".join(endings)
        raise OutputError(f"{out}: results end in {suffixes}; choose one of them.")
    return True


def is_one_file(inputs: Sequence[str]) -> bool:
    """Whether the inputs are one file, or the address of one picture in a store."""
    if len(inputs) != 1:
        return False
    text = inputs[0]
    plain = without_query(text)  # glob takes the question mark before it for magic
    is_picture = is_remote(text) and suffix_of(plain) in IMAGE_SUFFIXES
    return (is_picture and not glob.has_magic(plain)) or os.path.isfile(text)


def _is_picture_name(name: str) -> bool:
    """Whether a file of that name would be a picture, of a format that Cascade writes or not."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix != "" and suffix in Image.registered_extensions())


def plan_jobs(
    pictures: Sequence[InputPicture],
    out: Path,
    *,
    as_file: bool = False,
    image_format: ImageFormat | None = None,
    seeds: Sequence[int] = (0,),
    compare: bool = False,
    pages: PageChoice = "all",
    is_result_of: IsResultOf = lambda place, picture: False,
    bands: bool = False,
    doubt: bool = False,
) -> Plan:
    """List the results to make.

    A result keeps the name and format of its input, except that formats that Cascade does not write
    and unknown suffixes become PNG. Animated GIF stays GIF. See `cascade/bulk/names.py` for inputs
    that would share a name.

    Args:
        pictures: the inputs.
        out: folder of the results, or the file of a single result.
        as_file: whether `out` is that file.
        image_format: file format of all results; None keeps the formats of the inputs.
        seeds: whole numbers; each picture gets one result per seed. Several seeds give
            `NAME-seed0.png` and so on, and a sheet `NAME-variants.png`.
        compare: whether to write before/after sheets.
        pages: whether to work on all pages of a file, or on the first alone.
        is_result_of: whether the file at a place below the folder of the results was made from a
            picture by an earlier run.
        bands: whether the pictures are files of bands, which become TIFF if their own format is not
            written; they get no sheets.
        doubt: whether each result is written with the standard deviation over seeds.

    Raises:
        OutputError: if two results would have the same name, or a result would replace an input.
    """
    if as_file and image_format not in (None, FORMAT_OF_SUFFIX.get(out.suffix.lower())):
        raise OutputError(f"{out} is not the name of a {image_format} file; change one of the two.")
    folder = out.parent if as_file else out
    places, notes = [PurePosixPath(out.name)], []
    renamed = {
        id(each): _band_place(each) if bands else _result_place(each, image_format, pages)
        for each in pictures
    }
    folded = folding_of(folder, list(map(str, renamed.values())))
    if not as_file:
        first = seeds[0] if len(seeds) > 1 else None
        naming = Naming(
            lambda picture: renamed[id(picture)],
            lambda place, picture: is_result_of(_of_seed(place, first), picture),
            folded,
        )
        places, notes = naming.places(pictures)
    jobs: list[Job] = []
    sheets: list[VariantSheet] = []
    sheet_places = _places_beside(places, "variants", folded)
    for picture, place, sheet_place in zip(pictures, places, sheet_places, strict=True):
        is_first = pages == "first" and (bands or picture.page_count() > 1)
        of_picture = [
            replace(job, pages="first" if is_first else "all")
            for job in _jobs_of(picture, folder, place, seeds, compare)
        ]
        if len(seeds) > 1 and not bands:
            sheets.append(VariantSheet(of_picture, folder / sheet_place))
        jobs += of_picture
    jobs = _with_doubt(jobs, folder, folded) if doubt else jobs
    page = folder / COMPARISONS if compare else None
    plan = Plan(jobs, sheets, page=page, notes=notes)
    _check_paths_differ(plan, folded)
    return plan


def _jobs_of(
    picture: InputPicture, folder: Path, place: PurePosixPath, seeds: Sequence[int], compare: bool
) -> list[Job]:
    jobs = []
    for seed in seeds:
        own = _of_seed(place, seed if len(seeds) > 1 else None)
        sheet = folder / COMPARISONS / with_suffix_added(own, ".jpg") if compare else None
        jobs.append(Job(picture, folder / own, own.as_posix(), seed, sheet))
    return jobs


def _with_doubt(jobs: Sequence[Job], folder: Path, folded: Callable[[str], str]) -> list[Job]:
    """Add the files of the standard deviation, which are called NAME-doubt.

    Its numbers have the format of the result if that holds floats, else they are TIFF.
    """
    places = [PurePosixPath(job.key) for job in jobs]
    changed = []
    for job, place in zip(jobs, _places_beside(places, "doubt", folded), strict=True):
        suffix = suffix_of(job.key)
        suffix = suffix if BAND_KINDS.get(suffix) in KINDS_OF_FLOATS else ".tif"
        picture = folder / place
        numbers = picture.with_name(f"{picture.name.removesuffix('.png')}{suffix}")
        changed.append(replace(job, doubt=DoubtFiles(picture, numbers)))
    return changed


def _places_beside(
    places: Sequence[PurePosixPath], word: str, folded: Callable[[str], str]
) -> list[PurePosixPath]:
    """Places of PNGs beside results; for results that differ in suffix alone they keep it."""
    short = [with_ending(place, word, ".png") for place in places]
    counts = Counter(folded(str(each)) for each in short)
    return [
        each if counts[folded(str(each))] == 1 else with_suffix_added(place, f"-{word}.png")
        for place, each in zip(places, short, strict=True)
    ]


def _of_seed(place: PurePosixPath, seed: int | None) -> PurePosixPath:
    """The place of one of several results of a picture; None if it has one only."""
    return place if seed is None else with_ending(place, f"seed{seed}")


def _result_place(
    picture: InputPicture, image_format: ImageFormat | None, pages: PageChoice
) -> PurePosixPath:
    """The place of an input with the suffix that its result has."""
    place = picture.place
    suffix = place.suffix.lower()
    if suffix == ".gif" and image_format is None:
        is_kept = pages == "all" and picture.is_animated_gif()
        return place if is_kept else place.with_suffix(".png")
    if suffix in FORMAT_OF_SUFFIX and image_format in (None, FORMAT_OF_SUFFIX[suffix]):
        return place
    if image_format is not None:
        return place.with_suffix(next(s for s, f in FORMAT_OF_SUFFIX.items() if f == image_format))
    if suffix in IMAGE_SUFFIXES:
        return place.with_suffix(".png")
    return place.with_name(f"{place.name}.png")


def _band_place(picture: InputPicture) -> PurePosixPath:
    """The place of a file of bands with the suffix that its result has."""
    place = picture.place
    return place if suffix_of(place.name) in BAND_KINDS else place.with_suffix(".tif")


def _check_paths_differ(plan: Plan, folded: Callable[[str], str]) -> None:
    """Check that no result or sheet would overwrite another one or an input."""
    owners: dict[str, dict[str, Path]] = {}  # names of inputs, by folded path
    for path, name in plan.files():
        owners.setdefault(folded(str(path)), {}).setdefault(name, path)
    shared = [names for names in owners.values() if len(names) > 1]
    if shared:
        pairs = "; ".join(
            f"{' and '.join(map(without_secrets, names))} would "
            f"{'both' if len(names) == 2 else 'all'} be written to {next(iter(names.values()))}"
            for names in shared
        )
        raise OutputError(
            f"{pairs}; rename inputs, name a folder above them, or run the command once for each."
        )
    files = [
        each.source.file for each in plan.jobs if not isinstance(each.source.image, StoredObject)
    ]
    inputs = {_file_id(file): file for file in files}
    for path, _ in plan.files():
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
