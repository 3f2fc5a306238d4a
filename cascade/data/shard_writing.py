"""Writes webdataset shards whose bytes depend on their contents alone."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from cascade.saving.atomic import atomic_file


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], *, comment: str = "") -> None:
    """Write a tar file, which appears only when it is complete.

    Args:
        path: the tar file.
        members: name and content of each member, in their order.
        comment: text in its head, which programs that unpack it skip; empty for none.

    Raises:
        OutputError: if the file cannot be written.
    """
    with atomic_file(path) as temporary, _open_tar(temporary, comment) as tar:
        for name, data in members:
            _add(tar, name, data)


class ShardWriter:
    """Writes samples to `PREFIX-000000.tar` and so on, all of about the same size.

    Args:
        folder: folder of the shards; it should be a temporary one, because shards grow under their
            final names.
        prefix: beginning of the shards' names.
        shard_bytes: size of the members in bytes after which a new shard begins.
    """

    def __init__(self, folder: Path, prefix: str, shard_bytes: int) -> None:
        self.folder = folder
        self.prefix = prefix
        self.shard_bytes = shard_bytes
        self.images_per_shard: dict[str, int] = {}
        self._tar: tarfile.TarFile | None = None
        self._bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tar is not None:
            self._tar.close()

    def add(self, key: str, members: Iterable[tuple[str, bytes]]) -> None:
        """Write one sample; a sample is never split between shards.

        Args:
            key: unique name of the sample, without a dot in its last part.
            members: suffix (without dot) and content of each file of the sample.
        """
        if self._tar is None or self._bytes >= self.shard_bytes:
            self._next_shard()
        assert self._tar is not None
        for suffix, data in members:
            _add(self._tar, f"{key}.{suffix}", data)
            self._bytes += len(data)
        self.images_per_shard[Path(str(self._tar.name)).name] += 1

    def _next_shard(self) -> None:
        if self._tar is not None:
            self._tar.close()
        name = f"{self.prefix}-{len(self.images_per_shard):06d}.tar"
        self.images_per_shard[name] = 0
        self._tar = _open_tar(self.folder / name)
        self._bytes = 0


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_tar(path: Path, comment: str = "") -> tarfile.TarFile:
    headers = {"comment": comment} if comment else None
    return tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=headers)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # its defaults: time 0, user and group 0, mode 644
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
