"""The noisy images of any size that a walk works on; very large ones lie on disk.

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


class CanvasNoise:
    """Fresh noise for every step of a canvas, of which a strip of rows may be asked for.

    Args:
        noise: random streams of the images.
        shape: of the canvas, (B, C, H, W).
    """

    def __init__(self, noise: SeededNoise, shape: Sequence[int]) -> None:
        self.rows = slice(None)
        self._noise = noise
        self._shape = tuple(shape)
        self._field: Tensor | None = None
        self._is_drawn = False

    @property
    def generators(self) -> list[torch.Generator]:
        """One per image."""
        return self._noise.generators

    def new_step(self) -> None:
        """Forget the noise of the last step, and give whole canvases until `rows` is set."""
        self._is_drawn = False
        self.rows = slice(None)

    def normal(self, *shape: int) -> Tensor:
        """The rows at hand of this step's noise, drawn when first asked for: (B, C, rows, W)."""
        if self._field is None:
            self._field = new_canvas(self._shape)
        if not self._is_drawn:
            self._noise.fill_normal(self._field)
            self._is_drawn = True
        return self._field[..., self.rows, :].to(self._noise.device)
