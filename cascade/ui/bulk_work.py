"""The work of the tabs that restore pictures: a bulk command in the folder of a job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cascade.bulk.preparing import OnProgress
from cascade.bulk.progress import ProgressUpdate
from cascade.bulk.request import Request
from cascade.bulk.work import Bulk
from cascade.errors import ContractError
from cascade.sampling.overrides import Overrides
from cascade.sampling.per_stage import ALL
from cascade.ui.jobs import Job, Result
from cascade.ui.limits import Limits
from cascade.ui.panel import Site


def placed_inputs(
    job: Job, uploads: Sequence[str], limits: Limits, scale: float = 1.0
) -> list[Path]:
    """Put uploaded pictures into the folder of a job, under names that differ.

    Args:
        job: the job.
        uploads: paths of the uploaded files.
        limits: what pictures and results must keep to; others are left out and named.
        scale: factor for both sides of the results.

    Raises:
        ContractError: if there are none, or none that may be read.
    """
    if not uploads:
        raise ContractError("no image yet: drop one above, or click there to choose one.")
    pictures, faults = limits.sort([Path(each) for each in uploads], scale)
    job.show(faults=tuple(faults))
    if not pictures:
        raise ContractError("there is no image to work on.")
    folder = job.folder / "inputs"
    folder.mkdir()
    return [_placed(picture, folder) for picture in pictures]


def _placed(picture: Path, folder: Path) -> Path:
    """A picture in a folder, with a number in its name if the name is taken.

    It is linked there, or copied where the file system has no hard links.
    """
    place, number = folder / picture.name, 2
    while os.path.lexists(place):
        place, number = folder / f"{picture.stem}-{number}{picture.suffix}", number + 1
    try:
        os.link(picture, place)
    except OSError:
        shutil.copyfile(picture, place)
    return place


def request_of(
    job: Job,
    pictures: Sequence[Path],
    *,
    model: str,
    site: Site,
    steps: int | None,
    seeds: int,
) -> Request:
    """The request of a command for these pictures, with before/after sheets for the page."""
    return Request(
        inputs=[str(picture) for picture in pictures],
        out=job.folder / "results",
        model=model,
        overrides=Overrides({ALL: {"steps": steps}}),
        device=site.device,
        signer=site.signer,
        seeds=seeds,
        compare=True,
    )


def run_bulk(
    job: Job, prepare: Callable[[OnProgress], Bulk], further: Mapping[str, Path] | None = None
) -> None:
    """Do the work of a bulk command, and show and pack its results, also if it is cancelled.

    Args:
        job: the job.
        prepare: prepares the command, as the command line does.
        further: more files for the zip, by their names in it.
    """
    bulk: Bulk | None = None

    def on_progress(update: ProgressUpdate) -> None:
        if bulk is not None and update.message and update.kind == "result":
            job.offer(_results(bulk))
        job.on_progress(update)

    bulk = prepare(on_progress)
    try:
        bulk.run()
    finally:
        results = _results(bulk)
        job.offer(results)
        job.pack(_files(bulk, results) | (dict(further or {}) if results else {}))


def _results(bulk: Bulk) -> list[Result]:
    """The results that are complete, with their sheets."""
    has_seeds = len({job.seed for job in bulk.jobs}) > 1
    return [
        Result(
            caption=f"{job.source.file.name}, seed {job.seed}" if has_seeds else job.output.name,
            file=job.output,
            sheet=job.sheet,
        )
        for job in bulk.jobs
        if job.output.is_file() and job.sheet is not None and job.sheet.is_file()
    ]


def _files(bulk: Bulk, results: Sequence[Result]) -> dict[str, Path]:
    """All files that the command would write, by their places in the folder of the results."""
    files = [result.file for result in results]
    files += [sheet.path for sheet in bulk.plan.sheets if sheet.path.is_file()]
    if bulk.ledger.file is None:
        return {file.name: file for file in files}
    return {file.relative_to(bulk.ledger.file.parent).as_posix(): file for file in files}
