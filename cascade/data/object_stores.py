"""Files of object stores and web servers, through fsspec: `s3://`, `gs://`, `memory://`, ….

fsspec itself comes with torch and the Hub's client. Each kind of store needs a package of its own,
such as s3fs, which is imported when an address of that kind is used. Addresses without a scheme are
files of this machine.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.registry import get_filesystem_class, known_implementations

from cascade.data.remote import is_remote, without_secrets
from cascade.errors import CascadeError, DataError, OutputError, first_line
from cascade.imaging.opening import IMAGE_SUFFIXES
from cascade.saving.atomic import atomic_file

WILDCARDS = "*["  # a question mark begins the query of a web address
IS_WEB = re.compile("https?://")
SUFFIXES = tuple(IMAGE_SUFFIXES)
SENT_AT_ONCE_BYTES = 1 << 26  # larger files are sent in parts


@dataclass(frozen=True)
class StoredObject:
    """One file of an object store.

    Attributes:
        address: its address, with the scheme.
    """

    address: str

    @property
    def name(self) -> str:
        """The address for messages, without passwords."""
        return without_secrets(self.address)

    def stamp(self) -> tuple[int, int]:
        """Size in bytes, and a number that changes with the object, by what the store says of it.

        Raises:
            DataError: if the object is missing or cannot be reached.
        """
        store, path = open_store(self.address)
        with reading_store(self.address):
            facts = store.info(path)
        text = repr(sorted((key, str(value)) for key, value in facts.items()))
        return facts.get("size") or 0, int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)

    def read(self) -> bytes:
        """Read the object; the one that was read last is kept in memory.

        Raises:
            DataError: if it is missing or cannot be read.
        """
        return _content(self.address, self.stamp())


def open_store(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        DataError: if its kind is unknown, or needs a package that is not installed.
    """
    scheme = address.partition("://")[0] if is_remote(address) else "file"
    name = without_secrets(address)
    try:
        get_filesystem_class(scheme)
        return fsspec.url_to_fs(address)
    except ImportError as error:
        package = known_implementations[scheme]["class"].partition(".")[0]
        package = f'"fsspec[{scheme}]"' if package == "fsspec" else package
        raise DataError(
            f"{name}: addresses of {scheme}:// need a package that is not installed; "
            f"pip install {package}."
        ) from error
    except Exception as error:  # the packages share no class for theirs
        reason = without_secrets(first_line(error)).rstrip(".")
        raise DataError(f"{name}: {reason}.") from error


def read_object(address: str) -> bytes:
    """Read a file of an object store, or of this machine.

    Raises:
        DataError: if it is missing or cannot be read.
    """
    store, path = open_store(address)
    with reading_store(address):
        return store.cat_file(path)


@contextmanager
def opened_object(address: str) -> Iterator[BinaryIO]:
    """Open a file of an object store for reading.

    Raises:
        DataError: if it is missing or cannot be read.
    """
    store, path = open_store(address)
    with reading_store(address), store.open(path, "rb") as stream:
        yield stream


def write_object(address: str, data: bytes) -> None:
    """Write a file of an object store, or of this machine; nobody sees a part of it.

    Raises:
        OutputError: if it cannot be written.
    """
    if not is_remote(address):
        with atomic_file(Path(address)) as temporary:
            temporary.write_bytes(data)
        return
    store, path = open_store(address)
    with writing_store(address):
        _in_its_folder(store, path, lambda: store.pipe_file(path, data))


def create_object(address: str, data: bytes) -> bool:
    """Write a file of an object store, unless there is one of its name.

    Of several processes that create a file at the same time, one succeeds: in Google Cloud Storage,
    Azure and in memory; in S3 of AWS with s3fs and botocore above 1.35.20. Servers that only speak
    as S3 may ignore the demand. They and other stores are asked first, then written, then read
    again, so that one of two can find the other's file; both may succeed if they write the same.

    Returns:
        Whether it was written, and is there.

    Raises:
        OutputError: if it cannot be written, or not be read again.
    """
    store, path = open_store(address)
    options = {} if IS_WEB.match(address) else _creating(store)
    with writing_store(address):
        store.invalidate_cache()
        if store.exists(path):
            return False
        try:
            _in_its_folder(store, path, lambda: store.pipe_file(path, data, **options))
        except Exception:
            store.invalidate_cache()
            if store.exists(path):  # the packages share no class for this
                return False
            raise
        store.invalidate_cache()
        return store.cat_file(path) == data


def _creating(store: Any) -> dict[str, Any]:
    """The options that forbid a store to replace a file; empty if it has none."""
    known = inspect.signature(store.pipe_file).parameters
    if "overwrite" in known:  # Azure, which has `mode` in some versions only, and not by name
        return {"overwrite": False}
    return {"mode": "create"} if "mode" in known else {}


def send_file(address: str, file: Path) -> None:
    """Copy a file of this machine to an object store; in object stores nobody sees a part of it.

    Args:
        address: the address of the copy.
        file: the file.

    Raises:
        OutputError: if it cannot be written.
    """
    store, path = open_store(address)
    with writing_store(address):
        if IS_WEB.match(address) or file.stat().st_size <= SENT_AT_ONCE_BYTES:
            data = file.read_bytes()
            _in_its_folder(store, path, lambda: store.pipe_file(path, data))
        else:
            _in_its_folder(store, path, lambda: store.put_file(str(file), path))


def _in_its_folder(store: Any, path: str, write: Callable[[], object]) -> None:
    """Write a file; in stores that have folders, make its folder if it is missing.

    The first part of a path without a leading slash is a bucket, which is never made: its name may
    be a mistake, and buckets cost money.
    """
    try:
        write()
    except FileNotFoundError:
        if not path.startswith("/"):
            bucket = path.partition("/")[0]
            if IS_WEB.match(path) or not store.exists(bucket):
                raise
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
        write()


def object_exists(address: str) -> bool:
    """Whether there is a file at an address.

    Raises:
        DataError: if the store cannot be reached.
    """
    store, path = open_store(address)
    with reading_store(address):
        return bool(store.isfile(path))


def list_objects(address: str) -> list[tuple[StoredObject, str]]:
    """List the files at an address: of a folder and all folders in it, of a pattern, or the file.

    Args:
        address: a folder, a file, or a pattern with `*`, `**` or `[…]`.

    Returns:
        Each file in the order of the names, with its path below the folder, or below the part of
        the pattern before the first wildcard.

    Raises:
        DataError: if there is no such file or folder, or the store cannot be reached.
    """
    store, path = open_store(address)
    plain = without_query(path)
    with reading_store(address):
        if any(each in plain for each in WILDCARDS):
            paths, base = _matches(store, path), _before_wildcards(plain)
        elif not address.endswith("/") and store.isfile(path) and not _is_folder(store, path):
            paths, base = [path], plain.rpartition("/")[0]
        else:
            paths, base = sorted(store.find(path)), plain.rstrip("/")
    if not paths:
        raise DataError(
            f"{without_secrets(address)}: no files there; check the address, and whether the store "
            "can be reached."
        )
    return [
        (StoredObject(store.unstrip_protocol(each)), without_query(each)[len(base) :].lstrip("/"))
        for each in paths
    ]


def listed_address(address: str) -> str:
    """The address of a file or folder as `list_objects` spells it.

    Raises:
        DataError: see `open_store`.
    """
    store, path = open_store(address)
    return store.unstrip_protocol(path.rstrip("/"))


def without_query(address: str) -> str:
    """A web address without its query, which may hold a password; any other address as it is."""
    return re.split("[?#]", address, maxsplit=1)[0] if IS_WEB.match(address) else address


def _is_folder(store: Any, path: str) -> bool:
    """Whether there are files below a path.

    A web server is not asked about a picture, because it would send the whole of it.
    """
    is_web_picture = IS_WEB.match(path) and without_query(path).lower().endswith(SUFFIXES)
    return not is_web_picture and store.isdir(path)


def _matches(store: Any, pattern: str) -> list[str]:
    """The files that match a pattern, and those in folders that match it."""
    paths: set[str] = set()
    for path, facts in store.glob(pattern, detail=True).items():
        paths |= {path} if facts["type"] != "directory" else set(store.find(path))
    return sorted(paths)


def _before_wildcards(path: str) -> str:
    first = min(path.index(each) for each in WILDCARDS if each in path)
    return path[:first].rpartition("/")[0]


@lru_cache(maxsize=1)  # a picture is hashed, then decoded
def _content(address: str, stamp: tuple[int, int]) -> bytes:
    return read_object(address)


@contextmanager
def reading_store(address: str) -> Iterator[None]:
    """Convert the errors of reading from any store; the packages share no class for theirs.

    Raises:
        DataError: naming the address without passwords.
    """
    name = without_secrets(address)
    try:
        yield
    except CascadeError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file or folder.") from error
    except Exception as error:
        reason = without_secrets(first_line(error))
        raise DataError(f"{name}: cannot be read ({reason}).") from error


@contextmanager
def writing_store(address: str) -> Iterator[None]:
    """Convert the errors of writing to any store, as `reading_store` does.

    Raises:
        OutputError: naming the address without passwords.
    """
    name = without_secrets(address)
    try:
        yield
    except Exception as error:
        reason = without_secrets(first_line(error))
        raise OutputError(f"{name}: cannot be written ({reason}).") from error
