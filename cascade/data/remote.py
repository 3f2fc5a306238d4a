"""Remote shards, copied once to a cache folder.

Reading by index needs a seekable file, so each shard is fetched whole before it is used.
`webdataset.gopen` fetches it: `http(s)://`, `sftp://` and `scp://` with curl, `gs://` with gsutil,
`hf://` from the Hub, `ais://` with its own command. fsspec fetches all others, such as `s3://`; see
`cascade.data.object_stores`.

`pipe:COMMAND` runs a shell command. People pass recipes around, so a recipe must not run anything
by itself: such a path is refused unless the user sets `CASCADE_PIPE_URLS=1` for the session. Then
`pipe:aws s3 cp s3://bucket/a.tar -` works.

A copy is named by a hash of its URL and is never fetched again: delete it when the shard changes.
Processes that need the same shard at the same time each fetch it under a temporary name. The copy
takes its final name only when it is complete and checked, so no lock is needed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from webdataset.gopen import gopen, gopen_schemes

from cascade.errors import DataError

ALLOW_PIPES = "CASCADE_PIPE_URLS"
URL = re.compile(  # scheme, user and password, host and path, query; `::` separates two URLs
    r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/'\"]*@)?((?:(?!::)[^\s?'\"])*)(?:\?(?:(?!::)[^\s'\"])*)?"
)

logger = logging.getLogger(__name__)


def is_remote(path: str) -> bool:
    """Whether a path is a URL or a `pipe:` command."""
    return path.startswith("pipe:") or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", path) is not None


def without_secrets(text: str) -> str:
    """Remove user names, passwords and queries from all URLs in a text.

    Args:
        text: any text, such as a path, a command line or a recipe.
    """
    return URL.sub(r"\1\2", text)


def default_cache() -> Path:
    """The user's cache folder for copies of shards."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cascade" / "shards"


def fetch(url: str, cache: Path, *, check: Callable[[Path, str], object]) -> Path:
    """Copy a remote shard to the cache, unless it is there already.

    Args:
        url: address of the shard.
        cache: folder of the copies.
        check: called with the complete file and its name for messages; raises `DataError` if the
            file must not be used.

    Returns:
        The copy.

    Raises:
        DataError: if the shard cannot be fetched or is damaged, or the folder cannot be written.
    """
    _check_url(url)
    copy = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.tar"
    if copy.exists():
        return copy
    try:
        with _temporary_beside(copy) as temporary:
            logger.info("fetching %s", without_secrets(url))
            _write_synced(temporary, _chunks(url))
            check(temporary, without_secrets(url))
            os.replace(temporary, copy)
    except OSError as error:
        raise DataError(f"cannot write to {cache}: {error.strerror or error}.") from error
    return copy


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """An empty file in the same folder, removed at the end unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):
            os.unlink(name)


def _write_synced(path: Path, chunks: Iterator[bytes]) -> None:
    with path.open("wb") as file:
        path.chmod(0o644)  # temporary files are private, the copy is not
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())


def _check_url(url: str) -> None:
    if url.startswith("pipe:"):
        if os.environ.get(ALLOW_PIPES) != "1":
            raise DataError(f"{url} would run a command; set {ALLOW_PIPES}=1 to allow it.")
    elif re.search(r"[\s'\"`\\]", url):  # some versions of webdataset pass URLs to a shell
        raise DataError(f"{without_secrets(url)}: not a URL; write special characters as %XX.")


def _opened(url: str) -> Any:
    if url.partition(":")[0] in gopen_schemes:
        return gopen(url)
    from cascade.data.object_stores import opened_object  # which needs this module

    return opened_object(url)


def _chunks(url: str) -> Iterator[bytes]:
    """Read a URL; errors of the transfer become `DataError`, unlike errors of writing the copy."""
    try:
        with _opened(url) as stream:
            while data := stream.read(1 << 20):
                yield data
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{without_secrets(url)}: {error.filename} is needed to fetch it."
        ) from error
    except (OSError, ValueError, ImportError) as error:
        status = re.search(r"exit -?\d+", str(error))  # the rest of the message is the command
        reason = f"the transfer ended with {status.group()}" if status else str(error)
        raise DataError(f"{without_secrets(url)}: cannot be fetched ({reason}).") from error
