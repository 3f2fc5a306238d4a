"""Whether a result was made from this very picture with these very settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cascade.bulk.inputs import InputPicture
from cascade.errors import CascadeError
from cascade.imaging.picture_writing import recorded_settings
from cascade.saving.differences import flat

NAMES_ONLY = ("model", "version")  # the weights' hash says more, and a new version remakes nothing
INPUT = "input_sha256"  # what a result says of its input, among its settings


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A few hex digits that are the same for settings that make the same of a picture."""
    text = json.dumps(_that_matter(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def described(source: InputPicture) -> dict[str, Any]:
    """An input as the ledger keeps it.

    Raises:
        DataError: if it cannot be read.
    """
    size_bytes, mtime_ns = source.stamp()
    return {
        "input": source.name,
        "size_bytes": size_bytes,
        "mtime_ns": mtime_ns,
        "sha256": source.sha256(),
    }


def recorded(result: Path) -> dict[str, Any] | None:
    """What a result says of itself, as the ledger would; None if nothing."""
    with suppress(CascadeError):
        settings = recorded_settings(result)
        if settings is not None:
            settings = dict(settings)
            return {"sha256": settings.pop(INPUT, None), "settings": settings}
    return None


def difference(line: Mapping[str, Any], settings: Mapping[str, Any], source: InputPicture) -> str:
    """In what a result differs from one that is wanted.

    Args:
        line: of the ledger, or what the result says of itself.
        settings: that are wanted.
        source: the input that is wanted.

    Returns:
        Words that follow "was made"; none if it differs in nothing.

    Raises:
        DataError: if the input cannot be read.
    """
    old, new = _that_matter(line["settings"]), _that_matter(settings)
    changed = [
        f"{key}={old.get(key)} (now {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        return f"with {', '.join(changed)}"
    if (line.get("size_bytes"), line.get("mtime_ns")) == source.stamp():
        return ""
    return "" if line.get("sha256") == source.sha256() else "from another picture of that name"


def _that_matter(settings: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted keys."""
    return {k: v for k, v in flat(settings).items() if v is not None and k not in NAMES_ONLY}
