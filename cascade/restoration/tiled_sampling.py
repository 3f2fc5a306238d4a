"""Sampling one image of any size in tiles, without seams and in bounded memory.

One canvas of noise holds the whole image. At every step the network sees overlapping tiles of it,
its outputs are blended with weights that sum to one, and the canvas takes the step as a whole
(MultiDiffusion, Bar-Tal et al. 2023, arXiv 2302.08113; Mixture of Diffusers, Jimenez 2023, arXiv
2302.02412). Tiles are worked on row by row, so that besides the canvas only one row of tiles is in
memory.

Shapes: C channels, H and W pixels of the canvas, h and w of the low-resolution image, P channels of
the network's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.conditions import Conditions
from cascade.conditioning.low_resolution import augment
from cascade.devices import Precision, autocast
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.restoration.canvas import NoiseRows, new_canvas
from cascade.restoration.spans import Span, spans
from cascade.sampling.samplers.all import PairSampler, make_sampler
from cascade.sampling.settings import SamplingSettings
from cascade.stage import Stage

BATCH_PIXELS = 2**18
ENLARGING_MARGIN_PX = 2  # bicubic enlargement reads two pixels to each side
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Known:
    """Places of the result that are given.

    Attributes:
        image: (C, H, W) in [-1, 1].
        mask: (H, W) bool, where it holds.
    """

    image: Tensor
    mask: Tensor


def tiled_sampler(stage: Stage, settings: SamplingSettings) -> PairSampler:
    """The sampler that settings name, if the stage can sample tiles like this.

    Raises:
        ContractError: if it cannot.
    """
    sampler = make_sampler(
        settings.sampler, stage.process, settings.steps, **settings.sampler_options()
    )
    if not isinstance(sampler, PairSampler) or settings.threshold == "dynamic":
        raise ContractError(
            "tiles need sampler ddim or ddpm, and threshold static or none; got "
            f"{settings.sampler} and {settings.threshold}."
        )
    stage.check_settings(settings)
    return sampler


@torch.no_grad()
def sample_tiled(
    stage: Stage,
    seed: int,
    image: Tensor,
    *,
    labels: Tensor | None = None,
    settings: SamplingSettings | None = None,
    tile_px: int | None = None,
    overlap_px: int | None = None,
    known: Known | None = None,
    stream: str = "sample",
    precision: Precision = "fp32",
    progress: Progress | None = None,
) -> Tensor:
    """Sample one image of any size; where it fits into one tile, as `Stage.sample` does.

    Args:
        stage: one that takes an image.
        seed: of the image.
        image: (C, h, w) in [-1, 1], what the stage takes, of any size; of a colour image, a
            colourising stage takes the luminance.
        labels: (1, F) int64, -1 for "any"; None drops all labels.
        settings: default: the stage's own; samplers ddim and ddpm, without dynamic thresholding.
        tile_px: side of a tile of the result; default: the stage's own size.
        overlap_px: the least by which tiles overlap; default: a quarter of a tile.
        known: what is given of the result; noised as the canvas is, it stands there at every step,
            so that the rest is drawn to go with it (Lugmayr et al. 2022, arXiv 2201.09865).
        stream: name of the random stream.
        precision: `fp32`, `bf16`, or `auto`.
        progress: called after every row of tiles with how many are done and how many there are.

    Returns:
        (C, H, W) float32 in [-1, 1] on the CPU.

    Raises:
        ContractError: if image or settings do not fit the stage.
        OutputError: if the disk has no room for a very large canvas.
    """
    settings = settings or stage.sampling
    plan = _Plan(stage, image, tile_px=tile_px, overlap_px=overlap_px)
    sampler = tiled_sampler(stage, settings)
    noise = SeededNoise([seed], stream)
    conditions = plan.conditions(labels, settings.augmentation_level, noise)
    if precision == "auto" and stage.dtype != torch.float32:
        precision = "fp32"  # the weights have a precision of their own
    network = _TiledNetwork(stage, plan, conditions, settings.guidance, precision)
    canvas = new_canvas((1, stage.contract.channels, *plan.size))  # (1, C, H, W)
    noise.temperature = settings.temperature
    noise.fill_normal(canvas)
    held = None if known is None else _Held(known, canvas)
    fresh = NoiseRows(noise, canvas.shape)
    total = len(sampler.timesteps) * len(plan.rows)
    for index, t in enumerate(sampler.timesteps):
        fresh.new_step()
        if held is not None:
            held.put_into(canvas, stage.process.schedule, t)
        for number, (rows, output) in enumerate(network.strips(canvas, t), start=1):
            fresh.rows = rows
            canvas[..., rows, :], _ = sampler.step(output, canvas[..., rows, :], index, fresh)
            if progress is not None:
                progress(index * len(plan.rows) + number, total)
    if held is not None:
        held.put_into(canvas, stage.process.schedule, None)
    height, width = plan.wanted
    return canvas[0, :, :height, :width].clamp_(-1, 1)


class _Held:
    """What is known of a canvas, with the canvas's own noise there."""

    def __init__(self, known: Known, canvas: Tensor) -> None:
        self.places = known.mask.nonzero(as_tuple=True)
        self.x0 = known.image[:, *self.places][None, ..., None]  # (1, C, N, 1)
        self.eps = canvas[:, :, *self.places][..., None]

    def put_into(self, canvas: Tensor, schedule: NoiseSchedule, t: int | None) -> None:
        """Put it where it belongs, as noisy as timestep t is, or clean."""
        value = self.x0
        if t is not None:
            value = schedule.add_noise(self.x0, self.eps, torch.tensor([t]))
        canvas[:, :, *self.places] = value[..., 0].to(canvas)


@dataclass(frozen=True)
class _TiledNetwork:
    """A stage's network over the whole canvas, a tile at a time."""

    stage: Stage
    plan: _Plan
    conditions: _TileConditions
    guidance: float
    precision: Precision

    def strips(self, canvas: Tensor, t: int) -> Iterator[tuple[slice, Tensor]]:
        """The network's output (1, P, rows, W), a strip of rows at a time, from the top.

        A strip is given out when no further tile reaches it, so that the caller may change the
        canvas there.
        """
        rows = self.plan.rows
        pending = torch.zeros(0)
        for number, row in enumerate(rows):
            strip = self._row(canvas, t, row)
            strip *= row.weight[:, None]
            if number:
                strip[..., : pending.shape[-2], :] += pending
            end = rows[number + 1].start if number + 1 < len(rows) else row.stop
            done = end - row.start
            pending = strip[..., done:, :].clone()
            yield slice(row.start, end), strip[..., :done, :]

    @cached_property
    def _of_all(self) -> Conditions | None:
        """What the tiles are told, with what an encoder sees in them, if they are of one batch.

        Of more there may be no memory for what it sees in all: it looks at every step then.
        """
        if len(self.plan.rows) > 1 or len(self.plan.batches) > 1:
            return None
        with autocast(self.stage.device, self.precision):
            return self.stage.network.seen(
                self.conditions.of(self.plan.rows[0], self.plan.batches[0])
            )

    def _row(self, canvas: Tensor, t: int, row: Span) -> Tensor:
        """Outputs of one row of tiles, blended along the row: (1, P, tile, W)."""
        strip = None
        for columns in self.plan.batches:
            x_t = torch.cat([canvas[..., row.pixels, column.pixels] for column in columns])
            given = self._of_all or self.conditions.of(row, columns)
            with autocast(self.stage.device, self.precision):
                output = self.stage.guided_output(
                    x_t.to(self.stage.device), t, given, self.guidance
                )
            if strip is None:
                strip = torch.zeros(1, *output.shape[1:3], canvas.shape[-1])
            for tile, column in zip(output.float().cpu(), columns, strict=True):
                strip[0, ..., column.pixels] += tile * column.weight
        assert strip is not None
        return strip


class _Plan:
    """Where the tiles lie on the canvas."""

    def __init__(
        self, stage: Stage, image: Tensor, *, tile_px: int | None, overlap_px: int | None
    ) -> None:
        scale = stage.contract.scale
        grid = math.lcm(scale, stage.network.size_multiple_px)
        tile_px = stage.contract.size_px if tile_px is None else tile_px
        if tile_px < 1:
            raise ContractError(f"tile_px must be at least 1, got {tile_px}.")
        tile_px = math.ceil(tile_px / grid) * grid
        overlap_px = tile_px // 4 if overlap_px is None else overlap_px
        if not 0 <= overlap_px < tile_px:
            raise ContractError(f"overlap_px must be from 0 to {tile_px - 1}, got {overlap_px}.")
        height, width = stage.output_size(image[None])
        self.stage = stage
        self.wanted = (height, width)
        self.size = (math.ceil(height / grid) * grid, math.ceil(width / grid) * grid)
        self.rows = spans(self.size[0], tile_px, overlap_px, grid)
        self.columns = spans(self.size[1], tile_px, overlap_px, grid)
        at_once = max(1, BATCH_PIXELS // tile_px**2)
        self.batches = [
            self.columns[first : first + at_once] for first in range(0, len(self.columns), at_once)
        ]
        below, beside = (
            (padded - side) // scale for padded, side in zip(self.size, self.wanted, strict=True)
        )
        self.image = F.pad(image[None], (0, beside, 0, below), mode="replicate")

    def conditions(
        self, labels: Tensor | None, level: float, noise: SeededNoise
    ) -> _TileConditions:
        """What the tiles are told; the image is augmented once, as a whole."""
        image = self.stage.as_taken(self.image.float())
        levels = torch.tensor([level])
        augmented = augment(image, levels, noise.normal(*image.shape[1:]))
        return _TileConditions(self.stage, augmented, levels, self.stage.checked_labels(labels, 1))


@dataclass(frozen=True)
class _TileConditions:
    """The conditions of the whole image, cut to tiles."""

    stage: Stage
    image: Tensor
    level: Tensor
    labels: Tensor | None

    def of(self, row: Span, columns: Sequence[Span]) -> Conditions:
        """Of the tiles of a row at some columns."""
        windows = [self._window(row, column) for column in columns]
        device, count = self.stage.device, len(columns)
        return Conditions(
            None if self.labels is None else self.labels.expand(count, -1),
            torch.cat(windows).to(device),
            self.level.expand(count).to(device),
        )

    def _window(self, row: Span, column: Span) -> Tensor:
        """The part of the enlarged image under a tile, enlarged from no more than is needed."""
        scale = self.stage.contract.scale
        if scale == 1:
            return self.image[..., row.pixels, column.pixels]
        cuts, inner = [], []
        for span, side in zip((row, column), self.image.shape[-2:], strict=True):
            first = max(0, span.start // scale - ENLARGING_MARGIN_PX)
            last = min(side, span.stop // scale + ENLARGING_MARGIN_PX)
            cuts.append(slice(first, last))
            inner.append(slice(span.start - first * scale, span.stop - first * scale))
        cut = self.image[..., cuts[0], cuts[1]]
        size = tuple(side * scale for side in cut.shape[-2:])
        return F.interpolate(cut, size=size, mode="bicubic")[..., inner[0], inner[1]]
