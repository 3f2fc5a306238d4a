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
        written: how many pictures are complete, counted from the first.
    """

    number: int
    seeds: Sequence[int]
    request: Mapping[str, Any]
    written: int = 0

    def save(self, folder: Path, written: int) -> None:
        """Note in the folder of the pictures how many are complete."""
        with atomic_file(folder / RECORD) as temporary:
            text = json.dumps(asdict(replace(self, written=written)))
            temporary.write_text(text, encoding="utf-8")


def earlier_series(folder: Path, request: Mapping[str, Any]) -> PictureSeries | None:
    """The last series in a folder; None if there is none.

    Args:
        folder: folder of the pictures.
        request: what is asked for now.

    Raises:
        OutputError: if something else was asked for then, or the record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        series = PictureSeries(**json.loads(file.read_text(encoding="utf-8")))
        earlier = series.request
        changed = [name for name in request if request[name] != earlier[name]]
    except (ValueError, TypeError, LookupError) as error:
        raise OutputError(f"{file} is damaged; delete it to begin a new series.") from error
    if changed:
        raise OutputError(
            f"the last series in {folder} has other values of {', '.join(changed)}; repeat its "
            "command to resume it, or begin a new series."
        )
    return series


def digest(texts: Sequence[str]) -> str:
    """A short stand-in for many texts; empty for none."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] if texts else ""
