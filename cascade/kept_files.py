"""Files of what frozen models computed, which are read an entry at a time, by keys.

A folder holds the entries of one model with one set of settings. Each file holds those of some
keys, as safetensors, with `keys` (M,), a hash of each key; entries that come later go into further
files. Millions of entries need little memory, because only their keys are in it.

Shapes: M entries of a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar, final

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cascade.errors import OutputError

Entry = TypeVar("Entry", covariant=True)
logger = logging.getLogger(__name__)


class KeptFile(Protocol[Entry]):
    """An open file."""

    @property
    def keys(self) -> np.ndarray:
        """The hashes of its keys, (M,) int64."""
        ...

    def entry(self, row: int) -> Entry:
        """Read one entry."""
        ...


@final
class KeptFiles(Generic[Entry]):
    """The entries in a folder, by key.

    Args:
        folder: the folder, which need not exist yet.
        open_file: opens one file. It raises `ValueError` or `KeyError` if the tensors in it do not
            fit together.
        contents: what the entries are in messages, such as `embeddings of texts`.
    """

    def __init__(
        self, folder: Path, open_file: Callable[[Path], KeptFile[Entry]], contents: str
    ) -> None:
        self.folder = folder
        self.contents = contents
        self._open_file = open_file
        self._files: dict[Path, KeptFile[Entry]] = {}
        self._keys = np.empty(0, np.int64)  # sorted
        self._places = np.empty((0, 2), np.int64)  # number of the file, and row in it
        self.read()

    def __contains__(self, key: str) -> bool:
        return self._place(key) is not None

    def get(self, key: str) -> Entry | None:
        """The entry of a key; None if no file holds it."""
        place = self._place(key)
        if place is None:
            return None
        return list(self._files.values())[place[0]].entry(place[1])

    def read(self) -> None:
        """Open the files that are new.

        A damaged one is removed. One that cannot be read now, for lack of memory or since a network
        disk is away, stays for the next time.
        """
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._files:
                continue
            try:
                self._files[path] = self._open_file(path)
            except OSError as error:
                logger.warning("%s cannot be read now and is left out (%s)", path, error)
            except (SafetensorError, ValueError, KeyError) as error:
                logger.warning("%s is damaged and will be written again (%s)", path, error)
                with suppress(OSError):
                    path.unlink()
        self._sort()

    def write(self, keys: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Add entries, in a file of their own.

        Args:
            keys: one key per entry.
            tensors: the tensors of the file besides `keys`.

        Raises:
            OutputError: if it cannot be written.
        """
        hashes = _hashes(keys)
        path = self.folder / f"{hashlib.sha256(hashes.tobytes()).hexdigest()[:24]}.safetensors"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_file({**tensors, "keys": torch.from_numpy(hashes)}, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise self._cannot_write(error) from error
        finally:
            with suppress(OSError):  # already renamed, or never created
                temporary.unlink()
        self.read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process adds to the folder, and keep others out during a `with`.

        Raises:
            OutputError: if the folder cannot be written to.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            yield
        finally:
            lock.release()

    def _sort(self) -> None:
        files = list(self._files.values())
        if not files:
            return
        keys = np.concatenate([each.keys for each in files])
        rows = [
            np.stack([np.full(len(each.keys), number), np.arange(len(each.keys))], 1)
            for number, each in enumerate(files)
        ]
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], np.concatenate(rows)[order]

    def _place(self, key: str) -> tuple[int, int] | None:
        own_hash = _hashes([key])[0]
        number = int(np.searchsorted(self._keys, own_hash))
        if number == len(self._keys) or self._keys[number] != own_hash:
            return None
        file, row = self._places[number].tolist()
        return file, row

    def _cannot_write(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"cannot write {self.contents} to {self.folder}: {reason}.")


def _hashes(keys: Sequence[str]) -> np.ndarray:
    """Hashes of keys, (M,) int64: two of a million differ with a probability of 1 - 3e-8."""
    digests = (
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for key in keys
    )
    return np.frombuffer(b"".join(digests), np.int64).copy()
