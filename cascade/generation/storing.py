"""Generates picture files into a folder of an object store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cascade.data.stored_folder import StoredFolder
from cascade.errors import CascadeError, ContractError, OutputError
from cascade.generation.files import GeneratedFiles, generate_files
from cascade.generation.request import Generation
from cascade.generation.sheet import MOST_PICTURES
from cascade.imaging.numbered_files import GRID, INDEX, number_of, picture_name
from cascade.imaging.picture_series import RECORD, PictureSeries, read_series, record_name
from cascade.pipeline import CascadePipeline

RECORD_NAMES = re.compile(re.escape(Path(RECORD).stem) + r"-\d+\.json")


class _TakenError(Exception):
    """Another process has taken the numbers of a series."""


def generate_to_store(
    pipeline: CascadePipeline,
    address: str,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
    on_series: Callable[[PictureSeries, int], None] = lambda series, earlier: None,
) -> GeneratedFiles:
    """Generate pictures into a folder of a store; see `generate_files`.

    They are made in a temporary folder and sent whole, some at a time. The paths that are returned
    are those in the temporary folder, which is gone then; the names count.

    Several machines may generate into one folder. A series takes its numbers by creating its
    record, whose name holds the first of them, and which no other process can create then. A new
    series follows the last record, so no two have the same start. Each has an index of its own.

    Args:
        pipeline: the pipeline, on the device that should compute.
        address: address of the folder, with the scheme; it need not exist.
        generation: number, seeds and classes of the pictures, and how to sample them.
        name: the pipeline's name or folder, whose last part the PNGs record.
        callback: called after every step, see `callback_on_step_end` of the pipeline.
        on_series: see `generate_files`.

    Raises:
        CascadeError: if the settings do not fit, the store cannot be reached or written, or another
            process has resumed the same series.
    """
    if generation.overwrite:
        raise ContractError(
            f"images in {StoredFolder(address).name} are not replaced; name an empty folder, or "
            "continue after the images there."
        )
    stored = StoredFolder(address)
    options = {"name": name, "callback": callback}
    while True:
        try:
            return _generate_once(pipeline, stored, generation, on_series, options)
        except _TakenError:  # before the first picture; the next numbers are free, or the next ones
            stored.refresh()


def _generate_once(
    pipeline: CascadePipeline,
    stored: StoredFolder,
    generation: Generation,
    on_series: Callable[[PictureSeries, int], None],
    options: Mapping[str, Any],
) -> GeneratedFiles:
    """Generate pictures into a folder that is listed; `options` are those of `generate_files`.

    Raises:
        _TakenError: if another process has taken their numbers since the folder was listed.
    """
    with TemporaryDirectory(prefix="cascade-") as folder, _errors_naming(stored, folder):
        sending = _Sending(stored, Path(folder), resume=generation.resume)

        def begin(series: PictureSeries, earlier: int) -> None:
            sending.begin(series)
            on_series(series, earlier)

        try:
            files = generate_files(
                pipeline,
                sending.folder,
                generation,
                on_series=begin,
                on_written=sending.send,
                **options,
            )
        except BaseException:
            with suppress(CascadeError):  # what stopped the work says more
                sending.send()
            raise
        sending.send()
        index = files.index and files.index.with_name(sending.stored_name(files.index.name))
        return files._replace(index=index)


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

    Empty files stand for the pictures that are there, because their names decide those of new ones.
    Pictures that were sent become such files too, so that a long series takes no room here.

    Args:
        stored: the folder of the store.
        folder: an empty folder of this machine.
        resume: whether an earlier series may go on, so that the records of all are needed.

    Raises:
        CascadeError: if a record cannot be read.
    """

    def __init__(self, stored: StoredFolder, folder: Path, *, resume: bool = False) -> None:
        self.stored = stored
        self.folder = folder
        self._number: int | None = None  # of the first picture of the series
        for name in stored:
            if "/" not in name and (number_of(Path(name)) is not None or name == f"{GRID}.png"):
                (folder / name).touch()
        records = sorted((name for name in stored if RECORD_NAMES.fullmatch(name)), key=_by_number)
        for name in records if resume else records[-1:]:
            stored.fetch(name, folder / name)
        if records:
            last = read_series(folder / records[-1])
            (folder / picture_name(last.number + len(last.seeds) - 1, "")).touch()
        self._sent = dict(self._stamps())

    def stored_name(self, name: str) -> str:
        """The name in the store of a file of this machine: record and index are of one series."""
        assert self._number is not None, "begin says which series it is"
        if name == RECORD:
            return record_name(self._number)
        if name == INDEX and self._number:
            return f"{Path(INDEX).stem}-{self._number:05d}{Path(INDEX).suffix}"
        return name

    def begin(self, series: PictureSeries) -> None:
        """Take the numbers of a new series, or fetch what an earlier one needs to go on.

        The record of an earlier one is sent as it is, to see whether the store can be written.

        Raises:
            _TakenError: if another process has taken the numbers.
            CascadeError: if the store cannot be read or written.
        """
        record = record_name(series.number)
        series.save(self.folder, series.written)
        if record in self.stored:
            self.stored.send(self.folder / RECORD, record)
        elif not self.stored.create(record, (self.folder / RECORD).read_bytes()):
            raise _TakenError
        self._number = series.number
        if (index := self.stored_name(INDEX)) in self.stored:
            self.stored.fetch(index, self.folder / INDEX)
        shown = range(series.number, series.number + min(series.written, MOST_PICTURES))
        for each in self.stored:
            if number_of(Path(each)) in shown:
                self.stored.fetch(each, self.folder / each)
        self._sent = dict(self._stamps())

    def send(self) -> None:
        """Send what is new or has changed; what lists the pictures comes last.

        Raises:
            OutputError: if another process has sent a picture of the same name.
        """
        for path, stamp in [*self._stamps()] if self._number is not None else []:
            if self._sent.get(path) != stamp:
                name = self.stored_name(path.name)
                is_picture = path.name not in (INDEX, RECORD)
                if is_picture and path not in self._sent and self.stored.holds_now(name):
                    raise OutputError(
                        f"{self.stored.address_of(name)}: another process has written it, perhaps "
                        "by resuming the same series; wait for it, or begin a new series."
                    )
                self.stored.send(path, name)
                if is_picture:
                    os.truncate(path, 0)
                    stamp = _stamp(path)
                self._sent[path] = stamp

    def _stamps(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        paths = [path for path in self.folder.iterdir() if path.suffix not in (".tmp", ".lock")]
        for path in sorted(paths, key=_turn):
            yield path, _stamp(path)


def _by_number(record: str) -> int:
    return int(Path(record).stem.rpartition("-")[2])


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _turn(path: Path) -> tuple[bool, bool, str]:
    """Sorts files: the index after pictures, and last the record, which says that all are there."""
    return path.name == RECORD, path.name == INDEX, path.name
