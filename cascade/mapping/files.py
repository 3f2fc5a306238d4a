"""Makes results of whole picture files, just as the commands make them, from bytes to bytes.

The files of a batch lie in a temporary folder while the same loop works on them that the commands
use (`cascade.bulk`). Pages, profiles, metadata and the record in the results are therefore those of
a command, and so is what counts as done: a result in the store that was made from the same picture
with the same settings is not made again.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cascade.arguments import check_kind
from cascade.bulk.inputs import InputListing, InputPicture
from cascade.bulk.jobs import Job
from cascade.bulk.records import holds_record, result_stamp
from cascade.bulk.request import Request
from cascade.bulk.work import Bulk
from cascade.data.object_stores import object_exists, read_object, write_object
from cascade.data.remote import is_remote
from cascade.imaging.rasters.reading import suffix_of
from cascade.mapping.columns import without_file_scheme

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureFile:
    """A picture file in memory.

    Attributes:
        place: its place below a folder, which its result keeps apart from the suffix.
        data: its bytes.
        origin: path or address that it was read from; None if unknown.
    """

    place: PurePosixPath
    data: bytes
    origin: str | None = None


@dataclass(frozen=True)
class FileResult:
    """What became of a picture.

    Attributes:
        name: place of the result below a folder.
        data: bytes of the result; None if it failed.
        error: why it failed; empty if it did not.
    """

    name: str
    data: bytes | None = None
    error: str = ""


def results_of(
    files: Mapping[int, PictureFile],
    request: Request,
    prepare: Callable[[Request], Bulk],
    out: str | None,
) -> dict[int, FileResult]:
    """Make the results of picture files.

    Args:
        files: the files by any number.
        request: model and settings.
        prepare: makes the loop of a request.
        out: folder or address to write the results to; None to write none.

    Returns:
        One result for each file, by its number.

    Raises:
        CascadeError: if the settings do not fit the model, or results cannot be written.
    """
    if not files:
        return {}
    with tempfile.TemporaryDirectory(prefix="cascade-") as name:
        folder = Path(name)
        pictures = [_written(folder, number, file) for number, file in files.items()]
        request = replace(request, listing=InputListing(pictures), out=folder / "results")
        bulk = prepare(request)
        earlier = {}
        if out is not None and request.metadata:
            earlier = _fetch_earlier([job for job in bulk.jobs if holds_record(job.output)], out)
        bulk.run()
        for line in bulk.outcome().loss_lines():
            logger.warning("%s", line)
        results = _read(bulk, files)
        if out is not None:
            results = _without_originals(_without_doubles(results, files), files, out)
            _write_new(bulk.jobs, results, earlier, out)
        return results


def absolute_address(name: str, place: str | Path) -> str:
    """A folder by its absolute path, because processes work in folders of their own.

    Args:
        name: the argument's name, for the error message.
        place: a folder or address.

    Raises:
        ContractError: if it is neither.
    """
    check_kind(name, place, str | Path, "a folder or address")
    text = without_file_scheme(str(place))
    return text if is_remote(text) else os.path.abspath(text)


def address_of(out: str, name: str) -> str:
    """The address of a result."""
    return f"{out.rstrip('/')}/{name}"


def _written(folder: Path, number: int, file: PictureFile) -> InputPicture:
    """Put a file into the temporary folder; its number keeps it apart from others of its name."""
    path = folder / f"{number}{suffix_of(file.place.name)}"
    path.write_bytes(file.data)
    return InputPicture(path, PurePosixPath(str(number)) / file.place)


def _number_and_name(job: Job) -> tuple[int, str]:
    number, *parts = PurePosixPath(job.key).parts
    return int(number), str(PurePosixPath(*parts))


def _fetch_earlier(jobs: Sequence[Job], out: str) -> dict[str, list[int]]:
    """Copy results that exist already to where the loop looks for them; their stamps by key."""
    stamps = {}
    for job in jobs:
        address = address_of(out, _number_and_name(job)[1])
        if object_exists(address):
            job.output.parent.mkdir(parents=True, exist_ok=True)
            job.output.write_bytes(read_object(address))
            stamps[job.key] = result_stamp(job.output)
    return stamps


def _read(bulk: Bulk, files: Mapping[int, PictureFile]) -> dict[int, FileResult]:
    failures = dict(bulk.outcome().failed)
    results = {}
    for job in bulk.jobs:
        number, name = _number_and_name(job)
        reason = failures.get(job.source.name)
        if reason is None:
            results[number] = FileResult(name, data=job.output.read_bytes())
        else:
            reason = reason.replace(str(job.output), name)
            reason = reason.replace(job.source.name, str(files[number].place))
            results[number] = FileResult(name, error=reason)
    return results


def _without_doubles(
    results: Mapping[int, FileResult], files: Mapping[int, PictureFile]
) -> dict[int, FileResult]:
    """Fail results that would replace one of the same batch that was made from another picture."""
    owners: dict[str, int] = {}
    kept = {}
    for number, result in results.items():
        if result.data is None:  # it takes no name
            kept[number] = result
            continue
        owner = owners.setdefault(result.name, number)
        is_double = files[owner].data != files[number].data
        reason = (
            f"the result of another image is called {result.name} too; give them different names."
        )
        kept[number] = FileResult(result.name, error=reason) if is_double else result
    return kept


def _without_originals(
    results: Mapping[int, FileResult], files: Mapping[int, PictureFile], out: str
) -> dict[int, FileResult]:
    """Fail results that would replace a picture of the batch itself."""
    origins = {_identity(file.origin, out) for file in files.values() if file.origin}
    kept = dict(results)
    for number, result in results.items():
        if result.data is not None and _identity(address_of(out, result.name), out) in origins:
            reason = f"the result would replace the image {result.name} itself; write to a place"
            kept[number] = FileResult(result.name, error=f"{reason} that holds no originals.")
    return kept


def _identity(address: str, out: str) -> str:
    """What all addresses of a file share: engines name objects with and without the scheme."""
    address = without_file_scheme(address)
    if is_remote(out):
        return re.sub(r"^[^/:]+://", "", address).lstrip("/")
    return address if is_remote(address) else os.path.realpath(address)


def _write_new(
    jobs: Sequence[Job],
    results: Mapping[int, FileResult],
    earlier: Mapping[str, list[int]],
    out: str,
) -> None:
    for job in jobs:
        result = results[_number_and_name(job)[0]]
        if result.data is not None and earlier.get(job.key) != result_stamp(job.output):
            write_object(address_of(out, result.name), result.data)
