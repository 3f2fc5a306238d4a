"""Whether a job is done already: the record in its result decides.

Each result holds a record of the settings that it was made with, the SHA-256 of its input and its
own size in pixels. A job is done if a whole picture of that size stands in the place of its result,
and the record names the same input and settings. A result that was emptied, cut off, scaled or
replaced by another picture does not count; one that was tagged or retouched by a program that keeps
the record does.

PNG, JPEG, WebP and TIFF all hold the record. Results without metadata do not: for them the record
in the ledger counts, as long as the result has the SHA-256 that stands beside it.

Opening every result takes long when there are many, so the ledger also keeps size and times of
input and result (as git does in its index). While those are unchanged, two calls of `stat` are all
that a finished job costs. If only the times have changed, as in a copy of the folder, the SHA-256
spares decoding the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.bulk.inputs import InputPicture
from cascade.bulk.jobs import Job
from cascade.errors import CascadeError, DataError
from cascade.imaging.picture_reading import read_picture
from cascade.imaging.picture_writing import recorded_settings
from cascade.saving.differences import flat

NAMES_ONLY = ("model", "version")  # the weights' hash says more, and a new version changes nothing
INPUT, SIZE = "input_sha256", "size_px"


class NotAResultError(CascadeError):
    """A file in the place of a result is not one; the message continues "the file …"."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a result was made.

    Attributes:
        settings: anything that JSON can hold.
        input_sha256: of the file, or of the member of a shard, that it was made from; in hex.
        size_px: (H, W) of the result.
    """

    settings: Mapping[str, Any]
    input_sha256: str
    size_px: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """One flat object, as it is written into the result."""
        return {**self.settings, INPUT: self.input_sha256, SIZE: list(self.size_px)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Undo `to_json`.

        Raises:
            NotAResultError: if the values are not those of a record.
        """
        settings = dict(values)
        try:
            sha256, (height, width) = settings.pop(INPUT), settings.pop(SIZE)
        except (KeyError, TypeError, ValueError) as error:
            raise NotAResultError("is not a result of this command") from error
        return cls(settings=settings, input_sha256=sha256, size_px=(height, width))


def settings_id(settings: Mapping[str, Any]) -> str:
    """Twelve hex digits, the same for settings that make the same result."""
    text = json.dumps(_relevant(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def result_stamp(path: Path) -> list[int]:
    """Size in bytes and times of change of a result, which no change of the file leaves alone.

    Raises:
        OSError: if the file cannot be reached.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def ledger_values(job: Job, record: Record, input_stamp: Sequence[int]) -> dict[str, Any]:
    """What the ledger notes about a result that is right.

    Args:
        job: that it belongs to.
        record: of the result.
        input_stamp: of the input before it was read, so that later changes of it are noticed.

    Raises:
        OSError: if the result is gone.
    """
    return {
        "input": job.source.name,
        "input_stamp": list(input_stamp),
        "result_stamp": result_stamp(job.output),
        "result_sha256": _sha256(job.output),
        "record": record.to_json(),
    }


def is_unchanged(job: Job, line: Mapping[str, Any]) -> bool:
    """Whether input and result of a job are the files that a line of the ledger describes."""
    try:
        stamps = result_stamp(job.output), list(job.source.stamp())
    except (OSError, DataError):
        return False
    return (line.get("result_stamp"), line.get("input_stamp")) == stamps


def record_of(path: Path, line: Mapping[str, Any] | None) -> Record:
    """The record of the file that stands in the place of a result.

    Args:
        path: of the file.
        line: what the ledger noted about the result, if anything.

    Raises:
        NotAResultError: if it is not a whole result; the message says what it is.
    """
    try:
        if path.stat().st_size == 0:
            raise NotAResultError("is empty")
        if line is not None and _is_described(path, line):
            return Record.from_json(line.get("record", {}))
        return _read_record(path)
    except OSError as error:
        raise NotAResultError(f"cannot be read ({error.strerror or error})") from error
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").rstrip(".")
        raise NotAResultError(f"is not an intact picture: {reason}") from error


def difference(record: Record, settings: Mapping[str, Any], source: InputPicture) -> str:
    """How a result differs from the one that a job would make.

    Args:
        record: of the result.
        settings: of the job.
        source: the input of the job, which is read.

    Returns:
        Words that continue "the file …"; empty if it does not differ.

    Raises:
        DataError: if the input cannot be read.
    """
    old, new = _relevant(record.settings), _relevant(settings)
    changes = [
        f"{key}={old.get(key)} (now {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changes:
        return f"was made with {', '.join(changes)}"
    if record.input_sha256 != source.sha256():
        return "was made from another input of that name"
    return ""


def _is_described(path: Path, line: Mapping[str, Any]) -> bool:
    """Whether a file is the one that a line of the ledger describes, by its times or its bytes."""
    old, new = line.get("result_stamp"), result_stamp(path)
    if not isinstance(old, list) or old[:1] != new[:1]:  # of another size
        return False
    return old == new or line.get("result_sha256") == _sha256(path)


def _read_record(path: Path) -> Record:
    record = Record.from_json(recorded_settings(path) or {})
    size_px = read_picture(path).size  # decodes it, because a file cut off may still have a record
    if record.size_px != size_px:
        (old_height, old_width), (height, width) = record.size_px, size_px
        raise NotAResultError(
            f"was changed to {width}x{height} px (made with {old_width}x{old_height} px)"
        )
    return record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that change the result, by dotted keys and as JSON gives them back."""
    values = flat(json.loads(json.dumps(settings)))
    return {k: v for k, v in values.items() if v is not None and k not in NAMES_ONLY}
