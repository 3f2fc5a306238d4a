"""Generates picture files into a folder of an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from cascade.data.stored_folder import StoredFolder
from cascade.errors import CascadeError, ContractError
from cascade.generation.files import MOST_IN_GRID, GeneratedFiles, generate_files
from cascade.generation.request import Generation
from cascade.imaging.numbered_files import INDEX, number_of
from cascade.imaging.picture_series import RECORD, earlier_series
from cascade.pipeline import CascadePipeline


def generate_to_store(
    pipeline: CascadePipeline,
    address: str,
    generation: Generation,
    *,
    name: str,
    callback: Callable[..., None] | None = None,
) -> GeneratedFiles:
    """Generate pictures into a folder of a store; see `generate_files`.

    They are made in a temporary folder and sent whole, some at a time. The paths that are returned
    are those in the temporary folder, which is gone then; the names count.

    Args:
        pipeline: the pipeline, on the device that should compute.
        address: address of the folder, with the scheme; it need not exist.
        generation: number, seeds and classes of the pictures, and how to sample them.
        name: the pipeline's name, which the PNGs record.
        callback: called after every step, see `callback_on_step_end` of the pipeline.

    Raises:
        CascadeError: if the settings do not fit, or the store cannot be reached or written.
    """
    if generation.overwrite:
        raise ContractError(
            f"pictures in {StoredFolder(address).name} are not replaced; name an empty folder, or "
            "count on from the pictures there."
        )
    with TemporaryDirectory(prefix="cascade-") as folder:
        sending = _Sending(StoredFolder(address), Path(folder))
        if generation.resume:
            sending.fetch_series(generation, name)
        try:
            files = generate_files(
                pipeline,
                sending.folder,
                generation,
                name=name,
                callback=callback,
                on_written=sending.send,
            )
        except BaseException:
            with suppress(CascadeError):  # what stopped the work says more
                sending.send()
            raise
        sending.send()
        return files


class _Sending:
    """A folder of this machine in which pictures of a stored folder are made.

    Empty files stand for the objects that are there, because their names decide those of new ones.
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

    def fetch_series(self, generation: Generation, name: str) -> None:
        """Fetch the pictures of the last series that its contact sheet shows."""
        series = earlier_series(self.folder, generation.request(name))
        if series is None:
            return
        shown = range(series.number, series.number + min(series.written, MOST_IN_GRID))
        for each in self.stored:
            if number_of(Path(each)) in shown:
                self.stored.fetch(each, self.folder / each)
        self._sent = dict(self._stamps())

    def send(self) -> None:
        """Send what is new or has changed; what lists the pictures comes last."""
        for path, stamp in self._stamps():
            if self._sent.get(path) != stamp:
                self.stored.send(path, path.name)
                self._sent[path] = stamp

    def _stamps(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        paths = [path for path in self.folder.iterdir() if path.suffix not in (".tmp", ".lock")]
        for path in sorted(paths, key=lambda path: (path.name in (INDEX, RECORD), path.name)):
            facts = path.stat()
            yield path, (facts.st_size, facts.st_mtime_ns)
