"""Canvases: the noisy images that a walk works on, of any size; very large ones are files.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.mapped_arrays import new_array


def new_canvas(shape: Sequence[int], dtype: DTypeLike = np.float32) -> Tensor:
    """Allocate an uninitialised tensor on the CPU; a very large one is a file.

    Args:
        shape: shape of the tensor, (B, C, H, W).
        dtype: float32 or float64.

    Raises:
        OutputError: if the disk is full.
    """
    return torch.from_numpy(new_array(shape, dtype))


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
