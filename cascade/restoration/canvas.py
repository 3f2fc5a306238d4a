"""The noisy image of any size that tiles work on; a very large one lies on disk.

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


def new_canvas(shape: Sequence[int]) -> Tensor:
    """An uninitialised float32 tensor on the CPU.

    Above `MOST_IN_MEMORY_BYTES` it is a file without a name in the folder for temporary files, of
    which the system keeps in memory what there is room for.

    Raises:
        OutputError: if the disk has no room for it.
    """
    size_bytes = 4 * math.prod(shape)
    if size_bytes <= MOST_IN_MEMORY_BYTES:
        return torch.empty(*shape)
    with tempfile.TemporaryFile() as file:
        try:
            if hasattr(os, "posix_fallocate"):  # or a full disk would kill the process later
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            mapped = np.memmap(file, dtype=np.float32, mode="w+", shape=tuple(shape))
        except OSError as error:
            raise OutputError(
                f"a picture of this size needs {size_bytes / 2**30:.1f} GiB in "
                f"{tempfile.gettempdir()} while it is worked on ({error.strerror or error}); make "
                "room, or point TMPDIR elsewhere."
            ) from error
    return torch.from_numpy(mapped)


class NoiseRows:
    """Rows of noise that is drawn for a whole canvas at every step.

    Args:
        noise: where it is drawn from.
        shape: of the canvas, (B, C, H, W).
    """

    def __init__(self, noise: SeededNoise, shape: Sequence[int]) -> None:
        self.noise = noise
        self.shape = shape
        self.rows = slice(None)
        self._field: Tensor | None = None
        self._drawn = False

    def new_step(self) -> None:
        """Forget the last step's noise."""
        self._drawn = False

    def normal(self, *shape: int) -> Tensor:
        """The rows at hand of this step's noise, drawn when first asked for: (B, C, rows, W)."""
        if self._field is None:
            self._field = new_canvas(self.shape)
        if not self._drawn:
            self.noise.fill_normal(self._field)
            self._drawn = True
        return self._field[..., self.rows, :]
