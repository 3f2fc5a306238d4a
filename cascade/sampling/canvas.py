"""Canvases: the noisy images that a walk works on, of any size; very large ones are files.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.errors import OutputError

MOST_IN_MEMORY_BYTES = 2**30


def new_canvas(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate an uninitialised tensor on the CPU.

    Above `MOST_IN_MEMORY_BYTES` it is mapped to an unnamed file in the folder for temporary files;
    the system keeps as much of it in memory as fits.

    Args:
        shape: shape of the tensor, (B, C, H, W).
        dtype: float32 or float64.

    Raises:
        OutputError: if the disk is full.
    """
    size_bytes = dtype.itemsize * math.prod(shape)
    if size_bytes <= MOST_IN_MEMORY_BYTES:
        return torch.empty(*shape, dtype=dtype)
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # otherwise a full disk kills the process later
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            kind = np.float64 if dtype == torch.float64 else np.float32
            mapped = np.memmap(file, dtype=kind, mode="w+", shape=tuple(shape))
        except OSError as error:
            raise OutputError(
                f"a picture of this size needs {size_bytes / 2**30:.1f} GiB of temporary space in "
                f"{tempfile.gettempdir()} ({error.strerror or error}); free some, or set TMPDIR to "
                "another folder."
            ) from error
    return torch.from_numpy(mapped)


def bytes_in_memory(shape: Sequence[int]) -> int:
    """Memory in bytes of a canvas (B, C, H, W); 0 if it is a file."""
    size_bytes = 4 * math.prod(shape)
    return size_bytes if size_bytes <= MOST_IN_MEMORY_BYTES else 0


class CanvasNoise:
    """Fresh noise for every step of a canvas, whole or for a strip of rows.

    Strips get the rows of the same noise that the whole canvas would get.

    Args:
        noise: one random stream per image.
        shape: (B, C, H, W) of the canvas.

    Attributes:
        rows: the rows that `normal` returns.
    """

    def __init__(self, noise: SeededNoise, shape: Sequence[int]) -> None:
        self.rows = slice(None)
        self._noise = noise
        self._shape = tuple(shape)
        self._field: Tensor | None = None
        self._is_drawn = False

    @property
    def generators(self) -> list[torch.Generator]:
        """One generator per image."""
        return self._noise.generators

    @property
    def temperature(self) -> float:
        """Standard deviation of the noise."""
        return self._noise.temperature

    def new_step(self) -> None:
        """Discard the noise of the last step, and return whole canvases until `rows` is set."""
        self._is_drawn = False
        self.rows = slice(None)

    def normal(self, *shape: int) -> Tensor:
        """The noise of this step at `rows`: (B, C, rows, W); drawn at the first call of a step."""
        if self._field is None:
            self._field = new_canvas(self._shape)
        if not self._is_drawn:
            self._noise.fill_normal(self._field)
            self._is_drawn = True
        return self._field[..., self.rows, :].to(self._noise.device)
