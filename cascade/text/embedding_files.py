"""Files of embeddings, which are read a text at a time, so that millions need little memory.

A folder holds the embeddings of texts by one encoder, cut at one number of tokens. Each file holds
those of some texts, as safetensors: `tokens` (T, D) of all of them, one after the other, `ends`
(M,) where each text's tokens end, `pooled` (M, P), and `keys` (M,), a hash of each text. Texts that
come later go into further files.

Shapes: M texts, T tokens of all of them, D width of a token, P width of a pooled vector.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cascade.errors import OutputError
from cascade.text.encoder import EncodedText, EncoderFacts

logger = logging.getLogger(__name__)


@final
class EmbeddingFiles:
    """The embeddings in a folder, by text.

    Args:
        folder: the folder, which need not exist yet.
        facts: the encoder that computes them.
    """

    def __init__(self, folder: Path, facts: EncoderFacts) -> None:
        self.folder = folder
        self._facts = facts
        self._files: dict[Path, _EmbeddingFile] = {}
        self._keys = np.empty(0, np.int64)  # sorted
        self._places = np.empty((0, 2), np.int64)  # number of the file, and row in it
        self.read()

    def __contains__(self, text: str) -> bool:
        return self._place(text) is not None

    def get(self, text: str) -> EncodedText | None:
        """The embeddings of a text; None if no file holds them."""
        place = self._place(text)
        if place is None:
            return None
        return list(self._files.values())[place[0]].row(place[1])

    def read(self) -> None:
        """Open the files that are new; a damaged one is removed."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._files:
                continue
            try:
                self._files[path] = _EmbeddingFile(path, self._facts)
            except (SafetensorError, OSError, ValueError, KeyError) as error:
                logger.warning("%s is damaged and will be written anew (%s)", path, error)
                with suppress(OSError):
                    path.unlink()
        self._sort()

    def write(self, texts: Sequence[str], encoded: Sequence[EncodedText]) -> None:
        """Add the embeddings of texts, in a file of their own.

        Raises:
            OutputError: if it cannot be written.
        """
        keys = _keys(texts)
        path = self.folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:24]}.safetensors"
        lengths = torch.tensor([len(each.tokens) for each in encoded])
        tensors = {
            "tokens": torch.cat([each.tokens for each in encoded]),
            "ends": lengths.cumsum(0),
            "pooled": torch.stack([each.pooled for each in encoded]),
            "keys": torch.from_numpy(keys),
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            save_file(tensors, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise _cannot_write(self.folder, error) from error
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
            raise _cannot_write(self.folder, error) from error
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
            np.stack([np.full(len(f.keys), n), np.arange(len(f.keys))], 1)
            for n, f in enumerate(files)
        ]
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], np.concatenate(rows)[order]

    def _place(self, text: str) -> tuple[int, int] | None:
        key = _keys([text])[0]
        number = int(np.searchsorted(self._keys, key))
        if number == len(self._keys) or self._keys[number] != key:
            return None
        file, row = self._places[number].tolist()
        return file, row


class _EmbeddingFile:
    """One file; only its keys and ends are in memory.

    Raises:
        ValueError: if its tensors do not fit together.
    """

    def __init__(self, path: Path, facts: EncoderFacts) -> None:
        file: Any = safe_open(path, framework="pt")
        self.keys: np.ndarray = file.get_tensor("keys").numpy()
        self._ends: np.ndarray = file.get_tensor("ends").numpy()
        self._tokens, self._pooled = file.get_slice("tokens"), file.get_slice("pooled")
        count, total = len(self.keys), int(self._ends[-1]) if len(self._ends) else 0
        if (
            self._ends.shape != (count,)
            or np.any(np.diff(self._ends, prepend=0) < 0)
            or self._tokens.get_shape() != [total, facts.width]
            or self._pooled.get_shape() != [count, facts.pooled_width]
        ):
            raise ValueError("its tensors do not fit together")

    def row(self, number: int) -> EncodedText:
        """The embeddings of one text."""
        start = int(self._ends[number - 1]) if number else 0
        tokens = self._tokens[start : int(self._ends[number])]
        return EncodedText(tokens, self._pooled[number : number + 1][0])


def _keys(texts: Sequence[str]) -> np.ndarray:
    """Hashes of texts, (M,) int64: two of a million differ with a probability of 1 - 3e-8."""
    digests = (
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.frombuffer(b"".join(digests), np.int64).copy()


def _cannot_write(folder: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or error
    return OutputError(f"cannot write embeddings of texts to {folder}: {reason}.")
