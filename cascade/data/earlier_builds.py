"""What an earlier build left in the folder of the shards, and whether it may be replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cascade.data.splitting import SPLITS
from cascade.errors import OutputError

MANIFEST = "manifest.json"
KINDS = {"source": str, "settings": dict, "counts": dict, "skipped": list}  # of a build's manifest


def earlier_build(out: Path) -> dict[str, Any]:
    """The manifest of an earlier build.

    Args:
        out: folder of the shards.

    Returns:
        Empty if the folder holds no build.

    Raises:
        OutputError: if the folder has a manifest that no build wrote.
    """
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise _foreign(out) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), dict):
        raise _foreign(out)
    if "skipped" not in manifest:
        return {}
    if not all(isinstance(manifest.get(name), kind) for name, kind in KINDS.items()):
        raise _foreign(out)
    if not all(isinstance(manifest["counts"].get(split, 0), int) for split in SPLITS):
        raise _foreign(out)
    return manifest


def _foreign(out: Path) -> OutputError:
    return OutputError(f"{out / MANIFEST} was not written by a build; choose another folder.")


def own_files(earlier: Mapping[str, Any]) -> set[str]:
    """The names of the files that an earlier build wrote."""
    return {MANIFEST, *earlier["shards"]} if earlier else set()


def check_same_request(
    earlier: Mapping[str, Any], out: Path, head: Mapping[str, Any], images: int
) -> None:
    """Check, before anything is read, that an earlier build had this source and these settings.

    Args:
        earlier: its manifest; empty for none.
        out: folder of the shards.
        head: `source` and `settings` for the manifest of the new build.
        images: number of images of the source, with those that will be left out.

    Raises:
        OutputError: naming what differs.
    """
    if not earlier:
        return
    settings = json.loads(json.dumps(head["settings"]))
    old_settings, old_source = earlier["settings"], earlier["source"]
    differences = [
        f"{name}={_shown(old_settings.get(name))} (now {_shown(value)})"
        for name, value in settings.items()
        if old_settings.get(name) != value
    ]
    if _place(old_source) != _place(head["source"]):
        differences.insert(0, f"source={old_source} (now {head['source']})")
    counts = earlier["counts"]
    old_images = sum(counts.get(split, 0) for split in SPLITS) + len(earlier["skipped"])
    if old_images != images:
        differences.append(f"images={old_images} (now {images})")
    if differences:
        raise _refusal(out, f"was built with {', '.join(differences)}")


def _place(source: str) -> str:
    """A source in one spelling: the absolute path of files; URLs and other names stay."""
    return source if "://" in source else str(Path(source).resolve())


def check_same_shards(earlier: Mapping[str, Any], out: Path, manifest: Mapping[str, Any]) -> None:
    """Check that a new build has the same shards as an earlier one.

    Raises:
        OutputError: if a shard differs.
    """
    if earlier and earlier["shards"] != manifest["shards"]:
        raise _refusal(out, "was built from other images, labels or bands")


def _refusal(out: Path, reason: str) -> OutputError:
    return OutputError(f"{out} {reason}; choose another folder, or allow overwriting.")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(map(_shown, value.values()))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
