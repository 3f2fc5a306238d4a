"""What the data sets share: manifests, and sums by which a rebuild is checked.

PNG bytes depend on the Pillow and zlib versions, so the sums are of decoded pixels and JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

SPLITS = ("train", "validation", "unseen", "heldout")


class DatasetError(Exception):
    """A failure that one line explains to the user."""


def content_sha256(path: Path) -> str:
    """The sha256 of a shard's names, decoded pixels and JSON, in the order of the tar."""
    from PIL import Image

    digest = hashlib.sha256()
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                data = archive.extractfile(member).read()
                if member.name.endswith(".png"):
                    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                        data = f"{image.mode} {image.size} ".encode() + image.tobytes()
                digest.update(f"{member.name} {len(data)} ".encode() + data)
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(f"{path}: cannot read: {error}; build it again") from error
    return digest.hexdigest()


def shard_names(out: Path) -> set[str]:
    """The names of the shards in a folder and in those directly inside."""
    found = (path for split in SPLITS for path in out.glob(f"**/{split}-*.tar"))
    return {path.relative_to(out).as_posix() for path in found}


def write_manifest(manifest: Mapping, path: Path) -> None:
    """Write the manifest as sorted JSON; `path` appears only when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def read_sums(sums: Path) -> dict[str, str]:
    """Shard names and content sha256 from the file that `record` wrote."""
    lines = sums.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: digest for digest, name in pairs}


def check(out: Path, sums: Path) -> None:
    """Raise DatasetError unless the shards in `out` are exactly those recorded in `sums`."""
    expected, found = read_sums(sums), shard_names(out)
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - found)]
    wrong += [f"{name} is not in {sums.name}" for name in sorted(found - expected.keys())]
    wrong += [
        f"{name} differs"
        for name in sorted(found & expected.keys())
        if content_sha256(out / name) != expected[name]
    ]
    if wrong:
        raise DatasetError(f"{out} is not the default data set: {'; '.join(wrong)}")
