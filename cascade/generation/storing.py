"""Generates picture files into a folder of an object store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from cascade.data.object_stores import listed_address
from cascade.data.remote import default_cache
from cascade.data.stored_folder import StoredFolder
from cascade.errors import CascadeError, ContractError, OutputError
from cascade.generation.files import GeneratedFiles, generate_files
from cascade.generation.request import Generation
from cascade.generation.sheet import MOST_PICTURES
from cascade.imaging.numbered_files import INDEX, number_of
from cascade.imaging.picture_series import RECORD, PictureSeries
from cascade.pipeline import CascadePipeline
from cascade.saving.atomic import check_writable_folder

OTHERS = "another process generates pictures into {name}; wait for it or use another folder."


def generate_to_store(
    pipeline: CascadePipeline,
    address: str,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
    on_series: Callable[[PictureSeries], None] = lambda series: None,
) -> GeneratedFiles:
    """Generate pictures into a folder of a store; see `generate_files`.

    They are made in a temporary folder and sent whole, some at a time. The paths that are returned
    are those in the temporary folder, which is gone then; the names count.

    Args:
        pipeline: the pipeline, on the device that should compute.
        address: address of the folder, with the scheme; it need not exist.
        generation: number, seeds and classes of the pictures, and how to sample them.
        name: the pipeline's name or folder, whose last part the PNGs record.
        callback: called after every step, see `callback_on_step_end` of the pipeline.
        on_series: see `generate_files`.

    Raises:
        CascadeError: if the settings do not fit, the store cannot be reached or written, or another
            process generates pictures into it.
    """
    if generation.overwrite:
        raise ContractError(
            f"pictures in {StoredFolder(address).name} are not replaced; name an empty folder, or "
            "count on from the pictures there."
        )
    stored = StoredFolder(address)
    with _alone_in(stored), TemporaryDirectory(prefix="cascade-") as folder:
        stored.refresh()  # what a process wrote that has just ended
        with _errors_naming(stored, folder):
            sending = _Sending(stored, Path(folder))

            def begin(series: PictureSeries) -> None:
                sending.begin(series)
                on_series(series)

            try:
                files = generate_files(
                    pipeline,
                    sending.folder,
                    generation,
                    name=name,
                    callback=callback,
                    on_series=begin,
                    on_written=sending.send,
                )
            except BaseException:
                with suppress(CascadeError):  # what stopped the work says more
                    sending.send()
                raise
            sending.send()
            return files


@contextmanager
def _alone_in(stored: StoredFolder) -> Iterator[None]:
    """Keep a second process of this machine from giving its pictures the same numbers.

    Raises:
        OutputError: if another process generates pictures into the folder.
    """
    folder = default_cache().with_name("generating")
    check_writable_folder(folder)
    digest = hashlib.sha256(listed_address(stored.address).encode()).hexdigest()
    try:
        with FileLock(folder / f"{digest[:32]}.lock", timeout=0):
            yield
    except Timeout as error:
        raise OutputError(OTHERS.format(name=stored.name)) from error


@contextmanager
def _errors_naming(stored: StoredFolder, folder: str) -> Iterator[None]:
    """Let errors name the folder of the store, not the one of this machine, which is gone then."""
    try:
        yield
    except CascadeError as error:
        if folder not in str(error):
            raise
        raise type(error)(str(error).replace(folder, stored.name)) from error


class _Sending:
    """A folder of this machine in which pictures of a stored folder are made.

    Empty files stand for the objects that are there, because their names decide those of new ones.
    Pictures that were sent become such files too, so that a long series takes no room here.
    """

    def __init__(self, stored: StoredFolder, folder: Path) -> None:
        self.stored = stored
        self.folder = folder
        for name in stored:
            if "/" not in name:
                (folder / name).touch()
        for name in (INDEX, RECORD):
            if name in stored:
                stored.fetch(name, folder / name)
        self._sent = dict(self._stamps())

    def begin(self, series: PictureSeries) -> None:
        """Check that the store can be written, and fetch what the contact sheet of a series shows.

        The record that is sent for this is the one that is there, if there is one.

        Raises:
            CascadeError: if it cannot be written, or another process has begun a series.
        """
        if not (self.folder / RECORD).is_file():
            if self.stored.holds_now(RECORD):
                raise OutputError(OTHERS.format(name=self.stored.name))
            series.save(self.folder, 0)
        self.stored.send(self.folder / RECORD, RECORD)
        shown = range(series.number, series.number + min(series.written, MOST_PICTURES))
        for each in self.stored:
            if number_of(Path(each)) in shown:
                self.stored.fetch(each, self.folder / each)
        self._sent = dict(self._stamps())

    def send(self) -> None:
        """Send what is new or has changed; what lists the pictures comes last.

        Raises:
            OutputError: if another process, perhaps of another machine, has sent one of its name.
        """
        for path, stamp in [*self._stamps()]:
            if self._sent.get(path) != stamp:
                is_new = path not in self._sent and path.name not in (INDEX, RECORD)
                if is_new and self.stored.holds_now(path.name):
                    raise OutputError(OTHERS.format(name=self.stored.name))
                self.stored.send(path, path.name)
                if path.name not in (INDEX, RECORD):
                    os.truncate(path, 0)
                    stamp = _stamp(path)
                self._sent[path] = stamp

    def _stamps(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        paths = [path for path in self.folder.iterdir() if path.suffix not in (".tmp", ".lock")]
        for path in sorted(paths, key=_turn):
            yield path, _stamp(path)


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _turn(path: Path) -> tuple[bool, bool, str]:
    """Sorts files: the index after pictures, and last the record, which says that all are there."""
    return path.name == RECORD, path.name == INDEX, path.name
