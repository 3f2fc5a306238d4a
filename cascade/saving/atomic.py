"""Writing files and folders so that nothing half-written stands under its final name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from cascade.errors import OutputError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, synced and renamed to it when the block ends well.

    Raises:
        OutputError: if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # it was renamed, or could not be made
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path, *, owned: Collection[str]) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its place when the block ends well.

    A folder that stood there before is removed only after the new one is complete.

    Args:
        path: of the folder.
        owned: names of the files and folders that may stand there already and be replaced; where
            anything else does, it is somebody's work and nothing is touched.

    Raises:
        OutputError: if the folder cannot be written, or something else stands there.
    """
    temporary = None
    try:
        _check_replaceable(path, owned)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
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
    if not path.exists():
        os.replace(temporary, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    try:
        os.replace(path, aside / "old")
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(aside / "old", path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that no half of it stands under its name at any moment."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    with suppress(OSError):
        os.replace(path, aside / path.name)
    shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove what killed writers left beside the files and folders that they wrote.

    A folder that was to be replaced, and whose writer was killed before the new one had its name,
    gets its name back.

    Args:
        folder: where to look; nobody else may be writing these names there at the time.
        names: of the files and folders that were written; default: any.
    """
    for path in folder.glob(".?*"):
        name, _, _ = path.name[1:].rpartition(".")[0].rpartition(".")
        if path.suffix not in (".tmp", ".old") or (names is not None and name not in names):
            continue
        if path.suffix == ".old" and (path / "old").is_dir() and not (folder / name).exists():
            os.replace(path / "old", folder / name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_replaceable(path: Path, owned: Collection[str]) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path} is a file; choose another folder.")
    foreign = {each.name for each in path.iterdir()} - set(owned)
    if foreign:
        raise OutputError(
            f"{path} holds other things, such as {min(foreign)}, and would be replaced; choose "
            "another folder or empty it."
        )


def check_writable_folder(path: Path) -> None:
    """Create an output folder and check that files can be put into it.

    Raises:
        OutputError: if it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to folder {path}: {error.strerror or error}.") from error


def _sync(path: Path) -> None:
    """Have a file, or the names in a folder, outlive a failure of power."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
