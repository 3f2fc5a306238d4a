"""A network over a canvas of any size: whole, or in overlapping tiles without seams.

At every step, the outputs for overlapping tiles are blended with weights that sum to one, and the
canvas takes the step as a whole (MultiDiffusion, Bar-Tal et al. 2023, arXiv 2302.08113; Mixture of
Diffusers, Jimenez 2023, arXiv 2302.02412). Tiles come row by row, so that besides the canvas only
one row of tiles is in memory.

Shapes: B images, C channels, H and W pixels of the canvas, P channels of the network's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cascade.arguments import whole_number
from cascade.errors import ContractError
from cascade.sampling.guidance import GuidedSignals
from cascade.sampling.kept_features import KeptFeatures
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.spans import Span, fitted_tile, spans
from cascade.space import Size

BATCH_PIXELS = 2**18
OVERLAP_PX = 48  # of 16 to 128, the least that shows no seam; see docs/upscaling.md
Model = Callable[[Tensor, int, GuidedSignals, KeptFeatures | None], Tensor]
Prepare = Callable[[GuidedSignals], GuidedSignals]


@dataclass(frozen=True)
class Tiles:
    """The size and overlap of tiles, in pixels of the result.

    Attributes:
        tile_px: a tile has at most as many pixels as a square of this side, at least 1; it is
            rounded up to what the network takes.
        overlap_px: least overlap of neighbours, from 0 to below `tile_px`; None for `OVERLAP_PX`,
            or a quarter of `tile_px` if that is less.

    Raises:
        ContractError: if a number is not whole, or `tile_px` is below 1.
    """

    tile_px: int
    overlap_px: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile_px", whole_number("tile_px", self.tile_px, low=1))
        if self.overlap_px is not None:
            overlap_px = whole_number("overlap_px", self.overlap_px)
            object.__setattr__(self, "overlap_px", overlap_px)


class Tiling:
    """Where the tiles of a canvas lie, and which of them go through the network together.

    Args:
        size_px: height and width of the canvas, multiples of `grid_px`.
        grid_px: tiles start at multiples of this number of pixels.
        tiles: their size and overlap; None for one tile that covers the canvas.
        images: number B of images on the canvas.
        is_fitted: whether tiles take the size that covers the canvas with the fewest pixels; else
            they are squares of the largest size.

    Raises:
        ContractError: if the overlap is not from 0 to below a tile.
    """

    def __init__(
        self,
        size_px: Size,
        grid_px: int,
        tiles: Tiles | None,
        images: int,
        *,
        is_fitted: bool = True,
    ) -> None:
        largest_px = max(size_px) if tiles is None else tiles.tile_px
        largest_px = math.ceil(largest_px / grid_px) * grid_px
        overlap_px = None if tiles is None else tiles.overlap_px
        overlap_px = min(OVERLAP_PX, largest_px // 4) if overlap_px is None else overlap_px
        if not 0 <= overlap_px < largest_px:
            raise ContractError(f"overlap_px must be from 0 to {largest_px - 1}, got {overlap_px}.")
        height, width = largest_px, largest_px
        if is_fitted:
            height, width = fitted_tile(size_px, largest_px, overlap_px, grid_px)
        self.rows = spans(size_px[0], height, overlap_px, grid_px)
        self.columns = spans(size_px[1], width, overlap_px, grid_px)
        at_once = max(1, BATCH_PIXELS // (height * width * images))
        self.batches = [
            self.columns[first : first + at_once] for first in range(0, len(self.columns), at_once)
        ]

    @property
    def is_whole(self) -> bool:
        """Whether a single tile covers the canvas."""
        return len(self.rows) == len(self.columns) == 1


@dataclass(frozen=True)
class TiledNetwork:
    """A network over the tiles of a canvas.

    Attributes:
        model: returns the output (B, P, h, w) for x_t (B, C, h, w), a timestep, signals, and the
            features that the calls for a batch of tiles share.
        prepare: does once what every step needs of signals; see `StageNetwork.prepared`.
        signals: signals of the whole canvas.
        tiling: where the tiles lie.
        device: device of the network.
        reuse: number of calls in a row that share deep features; 1 to share none.
    """

    model: Model
    prepare: Prepare
    signals: GuidedSignals
    tiling: Tiling
    device: torch.device
    reuse: int = 1

    @property
    def count(self) -> int:
        """Number of strips of one step."""
        return len(self.tiling.rows)

    def outputs(
        self, canvas: Tensor, sampler: Sampler, index: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """The outputs (B, P, rows, W) of call `index`, a strip of rows at a time, from the top.

        A strip is yielded once no later tile reads the canvas there, so the caller may change it.
        """
        rows = self.tiling.rows
        if self.tiling.is_whole:
            yield (
                rows[0].pixels,
                self._output(canvas, sampler, index, self._prepared, (0, 0)).float(),
            )
            return
        pending = torch.zeros(0)
        for number, row in enumerate(rows):
            strip = self._row(canvas, sampler, index, number)
            strip *= row.weight[:, None]
            if number:
                strip[..., : pending.shape[-2], :] += pending
            end = rows[number + 1].start if number + 1 < len(rows) else row.stop
            height = end - row.start
            pending = strip[..., height:, :].clone()
            yield slice(row.start, end), strip[..., :height, :]

    def _row(self, canvas: Tensor, sampler: Sampler, index: int, number: int) -> Tensor:
        """The outputs of one row of tiles, blended along the row: (B, P, tile, W) on the CPU."""
        row, strip = self.tiling.rows[number], None
        for place, columns in enumerate(self.tiling.batches):
            x_t = torch.cat([canvas[..., row.pixels, column.pixels] for column in columns])
            signals = self._prepared if self._is_one_batch else self._signals(row, columns)
            output = self._output(x_t, sampler, index, signals, (number, place)).float().cpu()
            if strip is None:
                shape = (canvas.shape[0], output.shape[1], output.shape[2], canvas.shape[-1])
                strip = torch.zeros(shape)
            for tile, column in zip(output.chunk(len(columns)), columns, strict=True):
                strip[..., column.pixels] += tile * column.weight
        assert strip is not None
        return strip

    def _output(
        self,
        x_t: Tensor,
        sampler: Sampler,
        index: int,
        signals: GuidedSignals,
        place: tuple[int, int],
    ) -> Tensor:
        """The output for a batch of tiles, whose place is its row and its number in the row."""
        network_input = sampler.network_input(x_t, index).to(self.device)
        t = sampler.timesteps[index]
        if self.reuse == 1:
            return self.model(network_input, t, signals, None)
        kept = self._kept.setdefault(place, KeptFeatures(self.reuse))
        output = self.model(network_input, t, signals, kept)
        if len(self._kept) == 1:
            kept.check_memory(len(self.tiling.rows) * len(self.tiling.batches), self.device)
        return output

    @cached_property
    def _kept(self) -> dict[tuple[int, int], KeptFeatures]:
        """The deep features of each batch of tiles by its place."""
        return {}

    @property
    def _is_one_batch(self) -> bool:
        return len(self.tiling.rows) == len(self.tiling.batches) == 1

    @cached_property
    def _prepared(self) -> GuidedSignals:
        """The prepared signals of a single batch of tiles; those of many may not fit in memory."""
        return self.prepare(self._signals(self.tiling.rows[0], self.tiling.batches[0]))

    def _signals(self, row: Span, columns: Sequence[Span]) -> GuidedSignals:
        """The signals of a batch of tiles, on the network's device."""
        if self.tiling.is_whole:
            return self.signals.map(lambda tensor: tensor.to(self.device))
        windows = [self.signals.window(row.pixels, column.pixels) for column in columns]
        joined = windows[0]
        for window in windows[1:]:
            joined = joined.concatenate(window)
        return joined.map(lambda tensor: tensor.to(self.device))
