"""A folder of an object store that results are written to, known by one listing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, final

from cascade.data.object_stores import (
    IS_WEB,
    create_object,
    open_store,
    reading_store,
    send_file,
    without_query,
    write_object,
    writing_store,
)
from cascade.data.remote import is_remote, without_secrets
from cascade.errors import OutputError
from cascade.saving.atomic import atomic_file

HASHES = ("ETag", "etag", "e_tag", "md5Hash", "content_md5")  # names of them in different stores
PROBE = ".cascade-probe"
BUCKETS = re.compile("(s3a?|gc?s|az|abfss?|oss|r2|b2)://")  # stores whose paths begin with one
TIMES = ("LastModified", "last_modified", "updated", "created", "mtime")


@final
class StoredFolder:
    """The objects below an address.

    Files are copied to it whole. It is listed once; what other processes write later is not known.

    Args:
        address: address of the folder, with the scheme. It need not exist.
        is_listed: whether to list it; if not, the store is asked about each object that is needed.

    Raises:
        CascadeError: if the address names no bucket or is that of a file, the kind of store is
            unknown, a package is missing, or the store cannot be reached.
    """

    def __init__(self, address: str, *, is_listed: bool = True) -> None:
        if address.startswith("file:"):
            raise OutputError(f"{address} is on this machine; name the folder without file://.")
        _check_bucket(address)
        if without_query(address) != address:
            raise OutputError(
                f"{without_secrets(address)}: an address with a query names no folder; leave the "
                "query out."
            )
        self.address = address.rstrip("/")
        self._store, path = open_store(self.address)
        self._base = path.rstrip("/")
        self._objects: dict[str, tuple[int, str]] = {}  # size in bytes, and what tells it apart
        self._unlisted: set[str] | None = None if is_listed else set()  # those asked about
        if is_listed:
            self.refresh()

    @property
    def name(self) -> str:
        """The address for messages, without passwords."""
        return without_secrets(self.address)

    def refresh(self) -> None:
        """List the objects anew.

        Raises:
            DataError: if the store cannot be reached.
            OutputError: if the address is that of a file.
        """
        with reading_store(self.address):
            self._store.invalidate_cache()
            try:
                listing = self._store.find(self._base, detail=True)
            except FileNotFoundError:
                listing = {}
        if listing.pop(self._base, None) is not None and not IS_WEB.match(self.address):
            raise OutputError(f"{self.name} is a file; name a folder.")
        self._objects = {
            path[len(self._base) :].lstrip("/"): (facts.get("size") or 0, _mark(facts))
            for path, facts in listing.items()
        }

    def __contains__(self, name: str) -> bool:
        """Whether there is an object, by its path below the folder."""
        if self._unlisted is not None and name not in self._unlisted:
            with reading_store(self.address_of(name)), suppress(FileNotFoundError):
                self._ask(name)
            self._unlisted.add(name)
        return name in self._objects

    def __iter__(self) -> Iterator[str]:
        """The paths of all objects below the folder."""
        return iter(self._objects)

    def address_of(self, name: str) -> str:
        """The address of an object."""
        return f"{self.address}/{name}"

    def stamp(self, name: str) -> list[int]:
        """Size of an object in bytes, and a number that changes with it, by what the store says.

        Raises:
            FileNotFoundError: if it is not there.
            DataError: if the store cannot be reached.
        """
        if name not in self:
            raise FileNotFoundError(name)
        if not self._objects[name][1]:  # listings of some stores hold names alone
            with reading_store(self.address_of(name)):
                self._ask(name)
        size, mark = self._objects[name]
        return [size, int(hashlib.sha256(mark.encode()).hexdigest()[:15], 16)]

    def holds_now(self, name: str) -> bool:
        """Whether there is an object now, which another process may have written since.

        Raises:
            DataError: if the store cannot be reached.
        """
        with reading_store(self.address_of(name)):
            self._store.invalidate_cache()
            return bool(self._store.exists(f"{self._base}/{name}"))

    def fetch(self, name: str, file: Path) -> None:
        """Copy an object to a file of this machine.

        Raises:
            CascadeError: if the object cannot be read or the file cannot be written.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary, reading_store(self.address_of(name)):
            self._store.get_file(f"{self._base}/{name}", str(temporary))

    def send(self, file: Path, name: str) -> None:
        """Copy a file of this machine into the folder.

        Raises:
            OutputError: if it cannot be written.
        """
        send_file(self.address_of(name), file)
        with writing_store(self.address_of(name)):
            self._ask(name)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless another process has written one of its name; see `create_object`.

        Returns:
            Whether it was written.

        Raises:
            OutputError: if it cannot be written.
        """
        return create_object(self.address_of(name), data)

    def check_writable(self, name: str) -> None:
        """Write another object beside one that is to be written, and remove it.

        Web servers are not asked: fsspec cannot remove anything there.

        Raises:
            OutputError: if it cannot be written.
        """
        if IS_WEB.match(self.address):
            return
        try:
            write_object(self.address_of(PROBE), b"1")
        except OutputError as error:
            raise OutputError(str(error).replace(PROBE, name)) from error
        with suppress(Exception):  # who may write may not always remove
            self._store.rm_file(f"{self._base}/{PROBE}")

    def _ask(self, name: str) -> None:
        facts = self._store.info(f"{self._base}/{name}")
        if facts.get("type") == "directory":
            return
        mark = _mark(facts) or repr(sorted((key, str(value)) for key, value in facts.items()))
        self._objects[name] = facts.get("size") or 0, mark


def _check_bucket(address: str) -> None:
    """Check that an address goes on after its scheme; else it would mean a folder of this machine.

    Raises:
        OutputError: if it does not.
    """
    scheme = address.partition(":")[0]
    bucket = BUCKETS.sub("", address).partition("/")[0]
    if not (is_remote(address.rstrip("/")) and bucket):
        raise OutputError(
            f"{scheme}:// names no bucket; name one, such as {scheme}://bucket/large."
        )


def _mark(facts: Mapping[str, Any]) -> str:
    """What tells an object from later ones of its name; empty if the store did not say."""
    value = next((facts[key] for key in (*HASHES, *TIMES) if facts.get(key)), "")
    value = value.timestamp() if isinstance(value, datetime) else value  # as in some listings
    return f"{value:.3f}" if isinstance(value, float) else str(value).strip('"')
