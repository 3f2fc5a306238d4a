"""Writes files and folders so that an incomplete one never appears under its final name.

Temporary names begin with a dot and the final name, so that the leftovers of killed writers can be
found. A final name may fill all 255 bytes that file systems allow; a hash stands for a long one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from cascade.errors import OutputError

LONGEST_NAME_BYTES = 255  # of a file, on nearly all file systems
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")  # of systems, in any folder
LONGEST_LABEL_BYTES = 200  # leaves room for a process id and an ending


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block succeeds, sync it and rename it to `path`.

    Raises:
        OutputError: if the file cannot be written.
    """
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # already renamed, or never created
            temporary.unlink()


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it is removed when the block ends.

    Raises:
        OutputError: if it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(file: Path, path: Path) -> None:
    """Rename a complete file to `path`, on the same file system.

    Raises:
        OutputError: if it cannot be renamed.
    """
    try:
        os.replace(file, path)
        _sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def atomic_folder(path: Path, *, owned: Collection[str], follow: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; when the block succeeds, put it in the place of `path`.

    An existing folder is removed only after the new one is complete.

    Args:
        path: the folder to write.
        owned: names of entries that an existing folder may have; `a/b` is entry `b` of folder `a`,
            which may then hold nothing else. If there is any other entry, that is someone's work,
            and nothing is changed.
        follow: whether a link stays and the folder that it leads to is replaced. For folders that
            the user names; those in a folder from elsewhere could lead anywhere.

    Raises:
        OutputError: if the folder cannot be written, exists with other entries, or is a link to
            nothing.
    """
    temporary = None
    try:
        if follow and path.is_dir() and path.is_symlink():
            path = path.resolve()
        _check_replaceable(path, owned)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".tmp", dir=path.parent))
        temporary.chmod(0o755)
        yield temporary
        for entry in (*temporary.rglob("*"), temporary):
            _sync(entry)
        _put_in_place(temporary, path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {path}: {reason}.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename; an existing folder is set aside first and restored if the rename fails."""
    if not path.exists():
        os.replace(temporary, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".old", dir=path.parent))
    try:
        os.replace(path, aside / path.name)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(aside / path.name, path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder by renaming it first, so that it never appears half removed."""
    aside = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".tmp", dir=path.parent))
    with suppress(OSError):
        os.replace(path, aside / path.name)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove the temporary files and folders that killed writers left behind.

    If a writer was killed while it replaced a folder, the old folder gets its name back.

    Args:
        folder: where to look. No other process may be writing the same names there.
        names: the files and folders whose leftovers to remove; default: all.
    """
    labels = None if names is None else {_label(name) for name in names}
    for path in folder.glob(".?*"):
        label, _, _ = path.name[1:].rpartition(".")[0].rpartition(".")
        if path.suffix not in (".tmp", ".old") or (labels is not None and label not in labels):
            continue
        if path.suffix == ".old":
            _restore(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _restore(aside: Path) -> None:
    """Give a folder that was set aside its name back, unless a new one has taken it."""
    for old in aside.iterdir() if aside.is_dir() else ():
        is_old = old.is_dir() and aside.name.startswith(_prefix(old))
        if is_old and not (aside.parent / old.name).exists():
            os.replace(old, aside.parent / old.name)


def _prefix(path: Path) -> str:
    """The start of the temporary names of a file or folder."""
    return f".{_label(path.name)}."


def _label(name: str) -> str:
    """The name, or a hash of it if a temporary name would become too long."""
    data = os.fsencode(name)
    return name if len(data) <= LONGEST_LABEL_BYTES else hashlib.sha256(data).hexdigest()[:32]


def _check_replaceable(path: Path, owned: Collection[str]) -> None:
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to nothing; make the folder, or remove the link.")
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file; choose another folder.")
    stranger = _stranger(path, owned)
    if stranger is not None:
        raise OutputError(
            f"{path} holds other things, such as {stranger}, which would be lost; choose "
            "another folder or empty it."
        )


def _stranger(folder: Path, owned: Collection[str], place: str = "") -> str | None:
    """The first entry of a folder that is not owned; None if there is none.

    Args:
        folder: an existing folder.
        owned: see `atomic_folder`.
        place: path of the folder in the one to be replaced, ending in a slash.
    """
    for entry in sorted(folder.iterdir()):
        name = f"{place}{entry.name}"
        if name in owned or entry.name in LITTER:
            continue
        is_partly_owned = entry.is_dir() and any(each.startswith(f"{name}/") for each in owned)
        stranger = _stranger(entry, owned, f"{name}/") if is_partly_owned else name
        if stranger is not None:
            return stranger
    return None


def check_writable_folder(path: Path) -> None:
    """Create an output folder and check that files can be written into it.

    Raises:
        OutputError: if the folder cannot be created or written to, or is the address of a store.
    """
    _check_not_in_store(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _not_writable(path, error.strerror or str(error)) from error


def check_folder_can_be_written(path: Path) -> None:
    """Check the permissions that an output folder would be made and filled with; creates nothing.

    Raises:
        OutputError: as `check_writable_folder`, as far as permissions tell.
    """
    _check_not_in_store(path)
    existing = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not existing.is_dir():
        raise _not_writable(path, os.strerror(errno.EEXIST if existing == path else errno.ENOTDIR))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _not_writable(path, os.strerror(errno.EACCES))


def _check_not_in_store(path: Path) -> None:
    store = re.match(r"[a-z][a-z0-9+.-]+:/", path.as_posix())  # a Path joins the two slashes
    if store is not None:  # the rest of the address may hold a password
        raise OutputError(
            f"{store.group()}/… is the address of a store; name a folder of this machine and copy "
            "it afterwards."
        )


def _not_writable(path: Path, reason: str) -> OutputError:
    return OutputError(f"cannot write to folder {path}: {reason}.")


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk, so that they survive a power failure."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
