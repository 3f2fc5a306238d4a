"""Remote shards, copied once to a cache folder through webdataset's own openers.

Reading by index needs a file in which one can seek, so a shard is fetched whole before it is used.
`webdataset.gopen` does it: `http(s)://`, `sftp://` and `scp://` by curl, `gs://` by gsutil,
`hf://` by the Hub, `ais://` by its command.

`pipe:COMMAND` runs a shell command, and a recipe must not run anything by itself, because recipes
are passed around. So it is refused until the user allows it for the session by setting
`CASCADE_PIPE_URLS=1`; then `pipe:aws s3 cp s3://bucket/a.tar -` works.

A copy is named by a hash of its URL and is never fetched again: delete it when the shard changes.
Processes that want the same one at the same time each fetch it under a name of their own; the
copy takes its final name only when it is complete and checked, so no lock is needed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from webdataset.gopen import gopen

from cascade.errors import DataError

ALLOW_PIPES = "CASCADE_PIPE_URLS"
URL = re.compile(  # scheme, user and password, host and path, query; `::` stands between two
    r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/'\"]*@)?((?:(?!::)[^\s?'\"])*)(?:\?(?:(?!::)[^\s'\"])*)?"
)

logger = logging.getLogger(__name__)


def is_remote(path: str) -> bool:
    """Whether a path is a URL or a `pipe:` command."""
    return path.startswith("pipe:") or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", path) is not None


def shown(text: str) -> str:
    """A text, such as a path or a command line, whose URLs are without what may be a key to them.

    Left out are user and password, and all that follows a question mark.
    """
    return URL.sub(r"\1\2", text)


def default_cache() -> Path:
    """The user's folder of copied shards."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cascade" / "shards"


def fetch(url: str, cache: Path, *, check: Callable[[Path, str], object]) -> Path:
    """Copy a remote shard to the cache, unless it is there.

    Args:
        url: of the shard.
        cache: folder of the copies.
        check: called with the whole file and what to call it, before it is put in place.

    Returns:
        The copy.

    Raises:
        DataError: if it cannot be fetched, is damaged, or the folder cannot be written.
    """
    _check_url(url)
    copy = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.tar"
    if copy.exists():
        return copy
    temporary = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{copy.name}.", suffix=".tmp", dir=cache)
        logger.info("fetching %s", shown(url))
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)
            file.writelines(_chunks(url))
            file.flush()
            os.fsync(handle)
        check(Path(temporary), shown(url))
        os.replace(temporary, copy)
    except OSError as error:
        raise DataError(f"cannot write to {cache}: {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # it was renamed
                os.unlink(temporary)
    return copy


def _check_url(url: str) -> None:
    if url.startswith("pipe:"):
        if os.environ.get(ALLOW_PIPES) != "1":
            raise DataError(f"{url} would run a command; set {ALLOW_PIPES}=1 to allow it.")
    elif re.search(r"[\s'\"`\\]", url):  # openers of some versions put it on a shell's line
        raise DataError(f"{shown(url)}: not a URL; write special characters as %XX.")


def _chunks(url: str) -> Iterator[bytes]:
    """What an opener gives; its errors are of the network, those of the reader are not."""
    try:
        with gopen(url) as stream:
            while data := stream.read(1 << 20):
                yield data
    except FileNotFoundError as error:
        raise DataError(f"{shown(url)}: {error.filename} is needed to fetch it.") from error
    except (OSError, ValueError, ImportError) as error:
        status = re.search(r"exit -?\d+", str(error))  # the rest of it is the whole command
        reason = f"the transfer ended with {status.group()}" if status else str(error)
        raise DataError(f"{shown(url)}: cannot be fetched ({reason}).") from error
