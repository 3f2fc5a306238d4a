"""PictureSeries: what a series of generated pictures is and how far it is, kept in its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cascade.errors import OutputError
from cascade.saving.atomic import atomic_file

RECORD = ".cascade-generate.json"


@dataclass(frozen=True, kw_only=True)
class PictureSeries:
    """A series of pictures that is being made or was made last in a folder.

    Attributes:
        number: number of the first picture.
        seeds: one whole number per picture.
        request: what was asked for, as plain values by name.
        grid: name of the contact sheet's file.
        written: how many pictures are complete, counted from the first.
    """

    number: int
    seeds: Sequence[int]
    request: Mapping[str, Any]
    grid: str
    written: int = 0

    def save(self, folder: Path, written: int) -> None:
        """Note in the folder of the pictures how many are complete."""
        with atomic_file(folder / RECORD) as temporary:
            text = json.dumps(asdict(replace(self, written=written)))
            temporary.write_text(text, encoding="utf-8")


def record_name(number: int) -> str:
    """The name of a series' record where a folder keeps those of all its series.

    Args:
        number: number of its first picture.
    """
    return f"{Path(RECORD).stem}-{number:05d}.json"


def read_series(file: Path) -> PictureSeries:
    """Read the record of a series.

    Raises:
        OutputError: if it is damaged.
    """
    try:
        series = PictureSeries(**json.loads(file.read_text(encoding="utf-8")))
        kinds = {"number": int, "written": int, "seeds": list, "request": dict, "grid": str}
        if not all(isinstance(getattr(series, name), kind) for name, kind in kinds.items()):
            raise TypeError
    except (ValueError, TypeError) as error:
        raise OutputError(f"{file} is damaged; delete it to begin a new series.") from error
    return series


def earlier_series(folder: Path, request: Mapping[str, Any]) -> PictureSeries | None:
    """The last series of a request in a folder; None if there is no series at all.

    If there are several, the last one that is not complete comes first.

    Args:
        folder: folder of the pictures.
        request: what is asked for now, as values for JSON.

    Raises:
        OutputError: if something else was asked for then, or a record is damaged.
    """
    files = folder.glob(f"{Path(RECORD).stem}*.json")
    series = sorted((read_series(file) for file in files), key=lambda each: each.number)
    if not series:
        return None
    values = json.loads(json.dumps(request))  # which makes lists of tuples
    same = [each for each in series if not _changed(each, values)]
    if not same:
        raise OutputError(
            f"the last series in {folder} has other values of "
            f"{', '.join(_changed(series[-1], values))}; repeat its command to resume it, or begin "
            "a new series."
        )
    return max(same, key=lambda each: (each.written < len(each.seeds), each.number))


def _changed(series: PictureSeries, request: Mapping[str, Any]) -> list[str]:
    """The names of the values that were asked for in another way."""
    return [name for name in request if request[name] != series.request.get(name)]


def digest(texts: Sequence[str]) -> str:
    """A short stand-in for many texts; empty for none."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] if texts else ""
