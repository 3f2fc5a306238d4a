"""Decides by the record in a result whether a job is done already.

Each result contains a record of its settings, the SHA-256 of its input and its own size in pixels.
A job counts as done if its result is a whole picture of that size, with all its pages, and the
record lists the same input and settings. A result that was emptied, cut off, scaled or replaced by
another picture does not count. A result that was tagged or retouched by a program that keeps the
record does.

All formats but `.npy` can store the record. Results without metadata do not contain it: for them
the record in the ledger counts, as long as the result has the SHA-256 in that line.

Opening many results takes long, so the ledger also keeps size and times of input and result (as git
does in its index). While those are unchanged, a finished job costs only two calls of `stat`. If
only the times have changed, as in a copy of the folder, the SHA-256 saves decoding the result.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.bulk.inputs import InputPicture, InputShard
from cascade.bulk.jobs import Job
from cascade.errors import CascadeError, DataError
from cascade.imaging.opening import read_bytes
from cascade.imaging.pages import Pages
from cascade.imaging.picture_reading import count_pages, decode_picture
from cascade.imaging.rasters.layout import Layout
from cascade.imaging.rasters.reading import open_rasters, suffix_of
from cascade.imaging.rasters.recorded import mark_in
from cascade.saving.differences import flat

NAMES_ONLY = ("model", "model_is_folder", "adapters")  # the hash of the stages says more
NAMES_ONLY += ("version", "truncated")  # which change nothing for the same input
NAMES_ONLY += ("changed",)  # which repeats settings
ABSENT = {"pages": "all", "seeds": 1}  # what a setting that is not recorded means
INPUT, SIZE, PAGES = "input_sha256", "size_px", "page_count"
EXPECTED = "expected_error"  # changes the map beside a result, not the result


class NotAResultError(CascadeError):
    """A file with the name of a result is not a result; the message continues "the file …"."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a result was made.

    Attributes:
        settings: the settings that it was made with; anything that JSON can hold.
        input_sha256: SHA-256, in hex, of the input file or of its member of a shard.
        size_px: height and width of the result in pixels, or of its first page.
        pages: number of pages or frames of the result.
    """

    settings: Mapping[str, Any]
    input_sha256: str
    size_px: tuple[int, int]
    pages: int = 1

    def to_json(self) -> dict[str, Any]:
        """The record as one flat object, as results contain it."""
        values = {**self.settings, INPUT: self.input_sha256, SIZE: list(self.size_px)}
        return values if self.pages == 1 else {**values, PAGES: self.pages}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Make a record from the values of `to_json`.

        Raises:
            NotAResultError: if the values do not describe a record.
        """
        settings = dict(values)
        try:
            sha256, (height, width) = settings.pop(INPUT), settings.pop(SIZE)
            pages = int(settings.pop(PAGES, 1))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise NotAResultError("is not a result of this command") from error
        return cls(settings=settings, input_sha256=sha256, size_px=(height, width), pages=pages)


def holds_record(path: Path) -> bool:
    """Whether the format of a result has a place for its record."""
    return suffix_of(path.name) != ".npy"


def settings_id(settings: Mapping[str, Any]) -> str:
    """Hash settings into twelve hex digits; settings that make the same result have the same."""
    text = json.dumps(relevant_settings(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def result_stamp(path: Path) -> list[int]:
    """Size in bytes and times of change in ns of a result; any change of the file changes these.

    Raises:
        OSError: if the file cannot be reached.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def ledger_values(
    job: Job, record: Record, input_stamp: Sequence[int], file: Path | None = None
) -> dict[str, Any]:
    """The values that the ledger keeps about a result that is right.

    Args:
        job: the job of the result.
        record: the record in the result.
        input_stamp: size in bytes and time of change in ns of the input before it was read, so that
            later changes are noticed.
        file: the result, if it does not have its name yet.

    Raises:
        OSError: if the result is gone.
    """
    file = file or job.output
    return {
        "input": job.source.name,
        "input_stamp": list(input_stamp),
        "result_stamp": result_stamp(file),
        "result_sha256": _sha256(file),
        "record": record.to_json(),
    }


def is_unchanged(
    job: Job, line: Mapping[str, Any], stamp_of: Callable[[Path], list[int]] = result_stamp
) -> bool:
    """Whether input and result of a job are the files that a line of the ledger describes.

    Args:
        job: the job.
        line: the line.
        stamp_of: the stamp of a result; raises `OSError` if it does not exist.
    """
    try:
        stamps = stamp_of(job.output), list(job.source.stamp())
    except (OSError, DataError):
        return False
    return (line.get("result_stamp"), line.get("input_stamp")) == stamps


def record_of(path: Path, line: Mapping[str, Any] | None, layout: Layout | None = None) -> Record:
    """Read the record of the file that has the name of a result.

    Args:
        path: the file.
        line: the ledger's line about the result; None if there is no line.
        layout: how a file of bands is divided into images; None for colour pictures.

    Raises:
        NotAResultError: if it is not a whole result; the message says what it is.
    """
    try:
        if path.stat().st_size == 0:
            raise NotAResultError("is empty")
        if line is not None and _is_described(path, line):
            return Record.from_json(line.get("record", {}))
        return _read_record(path, layout)
    except OSError as error:
        raise NotAResultError(f"cannot be read ({error.strerror or error})") from error
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise NotAResultError(f"is not an intact image: {reason}") from error


def difference(
    record: Record, settings: Mapping[str, Any], source: InputPicture | InputShard
) -> str:
    """Describe how a result differs from the one that a job would make.

    Args:
        record: the record in the result.
        settings: the settings of the job.
        source: the input of the job; its bytes are read.

    Returns:
        Words that continue "the file …"; empty if it does not differ.

    Raises:
        DataError: if the input cannot be read.
    """
    old, new = relevant_settings(record.settings), relevant_settings(settings)
    was, is_now = (each.pop(EXPECTED, None) for each in (old, new))
    changes = [
        f"{key}={old.get(key, ABSENT.get(key))} (now {new.get(key, ABSENT.get(key))})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changes:
        return f"was made with {', '.join(changes)}"
    if record.input_sha256 != source.sha256():
        return "was made from another input of that name"
    if was != is_now:
        return f"stands beside an uncertainty map {_change_of_errors(was, is_now)}"
    return ""


def _change_of_errors(before: str | None, now: str | None) -> str:
    """How the expected errors changed since a map was made, to follow "an uncertainty map"."""
    if before is None:
        return (
            "that shows the standard deviation; the model's expected errors have been measured "
            "since"
        )
    if now is None:
        return "that shows expected errors, which no longer apply to these results"
    return "that shows expected errors, which have been measured again since"


def _is_described(path: Path, line: Mapping[str, Any]) -> bool:
    """Whether a file is the one that a line of the ledger describes, by its times or its bytes."""
    old, new = line.get("result_stamp"), result_stamp(path)
    if not isinstance(old, list) or old[:1] != new[:1]:  # of another size
        return False
    return old == new or line.get("result_sha256") == _sha256(path)


def _read_record(path: Path, layout: Layout | None) -> Record:
    if not holds_record(path):  # so that the ledger alone knows it
        raise NotAResultError("holds no record of how it was made")
    data, name = read_bytes(path), str(path)
    record = Record.from_json(mark_in(data, name).record)
    if layout is None:
        pages = count_pages(data, name)
        # it is decoded, because a file cut off may still have a record
        size_px = decode_picture(data, name).size if pages == 1 else Pages(data, name).sizes[0]
    else:
        pages, size_px = _decoded_bands(data, name, layout)
    if record.pages != pages:
        raise NotAResultError(f"was changed to {pages} pages (made with {record.pages})")
    if record.size_px != size_px:
        (old_height, old_width), (height, width) = record.size_px, size_px
        raise NotAResultError(
            f"was changed to {width}x{height} px (made with {old_width}x{old_height} px)"
        )
    return record


def _decoded_bands(data: bytes, name: str, layout: Layout) -> tuple[int, tuple[int, int]]:
    """Number and size of the images of a file, all of which are decoded, one at a time."""
    file = open_rasters(io.BytesIO(data), name, layout)
    sizes = [file.image(number).size for number in range(len(file))]
    return len(sizes), sizes[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def relevant_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change the result, by dotted keys, with values as after JSON."""
    values = flat(json.loads(json.dumps(settings)))
    return {k: v for k, v in values.items() if v is not None and k not in NAMES_ONLY}
