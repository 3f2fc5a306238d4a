"""Arrays that may be larger than the memory: above a size they are files, row by row in memory.

Shapes: … any axes, H rows, W columns.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from cascade.errors import OutputError

MOST_IN_MEMORY_BYTES = 2**28
NUMBERS_AT_ONCE = 2**24  # of an array that is worked on in parts
_files: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def new_array(shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Allocate an uninitialised array.

    Above `MOST_IN_MEMORY_BYTES` it is mapped to an unnamed file in the folder for temporary files;
    see `release_pages`.

    Args:
        shape: shape of the array.
        dtype: type of its numbers.

    Raises:
        OutputError: if the disk is full.
    """
    size_bytes = np.dtype(dtype).itemsize * math.prod(shape)
    if size_bytes <= MOST_IN_MEMORY_BYTES:
        return np.empty(tuple(shape), dtype)
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # otherwise a full disk kills the process later
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            else:
                file.truncate(size_bytes)
            mapped = mmap.mmap(file.fileno(), size_bytes)
        except (OSError, OverflowError) as error:
            cause = getattr(error, "strerror", None) or error
            raise OutputError(
                f"an image of this size needs {size_bytes / 2**30:.1f} GiB of temporary space in "
                f"{tempfile.gettempdir()} ({cause}); free some, or set TMPDIR to another folder."
            ) from error
    _files.add(mapped)
    return np.frombuffer(mapped, dtype).reshape(shape)


def bytes_in_memory(shape: Sequence[int], itemsize: int = 4) -> int:
    """Memory in bytes of an array of float32; 0 if it is a file."""
    size_bytes = itemsize * math.prod(shape)
    return size_bytes if size_bytes <= MOST_IN_MEMORY_BYTES else 0


def release_pages() -> None:
    """Give back the memory of arrays that are files; what is needed again comes from the file.

    The system would do so itself when memory is short, but until then a process seems to need it.
    """
    for mapped in [*_files]:
        if hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)


def row_slices(shape: Sequence[int], rows: slice | None = None) -> Iterator[slice]:
    """The rows of an array in parts of about `NUMBERS_AT_ONCE`, from the top.

    Args:
        shape: (…, H, W) of the array.
        rows: its rows, with both ends; None for all.
    """
    start, stop = (0, shape[-2]) if rows is None else (rows.start, rows.stop)
    height = max(1, NUMBERS_AT_ONCE * shape[-2] // math.prod(shape))
    for first in range(start, stop, height):
        yield slice(first, min(first + height, stop))


def by_rows(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Apply a function of single numbers to images (…, H, W); a large result is float32 and a file.

    Args:
        function: returns a tensor of the shape and type of its argument.
        images: any float32 tensor.
    """
    if bytes_in_memory(images.shape):
        return function(images)
    result = torch.from_numpy(new_array(images.shape, np.float32))
    for rows in row_slices(images.shape):
        result[..., rows, :] = function(images[..., rows, :])
        release_pages()
    return result
