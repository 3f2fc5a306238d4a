"""The walk from noise to images, for whole images and for tiles alike.

A canvas holds the images of a batch. At every step, the network's outputs come in strips of rows:
one strip for whole images, one for each row of tiles otherwise. Then the canvas takes the step.

Shapes: B images, C channels, H and W pixels of the canvas, P channels of the network's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from cascade.arguments import check_callable, check_kind, shown
from cascade.errors import ContractError, SettingsError
from cascade.mapped_arrays import release_pages, row_slices
from cascade.sampling.canvas import CanvasNoise, new_canvas
from cascade.sampling.known_pixels import Known, KnownPixels
from cascade.sampling.resampling import Resampling
from cascade.sampling.samplers.sampler import GridSampler, PairSampler, Sampler
from cascade.sampling.watching import StepCallback, with_watcher

Progress = Callable[[int, int], None]  # (done, total), counted in strips of all steps


class Strips(Protocol):
    """The network applied to a canvas, strip by strip."""

    @property
    def count(self) -> int:
        """Number of strips in one step."""
        ...

    def outputs(
        self, canvas: Tensor, sampler: Sampler, index: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """The outputs (B, P, rows, W) of call `index` with their rows, from the top.

        A strip is yielded once no later one reads the canvas there, so the caller may change it.
        """
        ...


@dataclass(frozen=True)
class StartFrom:
    """Images to start from instead of noise (SDEdit, Meng et al. 2021, arXiv 2108.01073).

    Attributes:
        image: (B, C, H, W) in [-1, 1]; a smaller one lies at the top left of the canvas, and its
            last row and column are repeated.
        strength: share of the steps that are taken, in (0, 1]; at 1 little is left of the image.
    """

    image: Tensor
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Extra work during a walk.

    Attributes:
        known: known pixels. They replace the canvas before every step, with the noise of that step,
            so that the other pixels are drawn to fit (Lugmayr et al. 2022, arXiv 2201.09865).
        resampling: how often to go over the steps, so that new pixels fit known ones.
        start_from: images to start from; None for noise.
        callback: called after every step with its index, its timestep and the tensors `x_t` and
            `x0` by name; it may return `{"x_t": ...}` to replace the images. With tiles, later
            steps overwrite `x_t`.
        progress: called after every strip with the numbers of strips done and in total.
    """

    known: Known | None = None
    resampling: Resampling = field(default_factory=Resampling)
    start_from: StartFrom | None = None
    callback: StepCallback | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_kind("known", self.known, Known | None, "Known(image, mask)")
        check_kind("resampling", self.resampling, Resampling, "Resampling(...)")
        check_kind("start_from", self.start_from, StartFrom | None, "StartFrom(image)")
        check_callable("callback", self.callback)
        check_callable("progress", self.progress)


def walk(
    sampler: Sampler, strips: Strips, noise: Tensor, fresh: CanvasNoise, hooks: Hooks
) -> Tensor:
    """Go from noise to images.

    Args:
        sampler: a new sampler for this batch.
        strips: the network over the canvas.
        noise: (B, C, H, W) standard normal noise; the walk may overwrite it.
        fresh: noise for the steps.
        hooks: extra work during the walk.

    Returns:
        (B, C, H, W) float32, the images that the last step predicts.

    Raises:
        SettingsError: if the sampler cannot walk like this, see `check_can_walk`.
        ContractError: if an image has another size.
    """
    check_can_walk(
        sampler,
        goes_back=hooks.resampling.resamplings > 1,
        from_image=hooks.start_from is not None,
    )
    hooks = replace(hooks, callback=with_watcher(hooks.callback))
    pixels = None if hooks.known is None else KnownPixels(hooks.known, noise)
    canvas, first = _start(sampler, noise, hooks.start_from)
    timesteps = sampler.timesteps
    moves = list(hooks.resampling.moves(first, len(timesteps)))
    total, number = first + sum(after > before for before, after in moves), first
    for index, after in moves:
        fresh.new_step()
        if after < index:
            _go_back(canvas, pixels, sampler, fresh, (index, after))
            continue
        if pixels is not None:
            pixels.put_into(canvas, sampler, index)
        step = _Step(sampler, strips, fresh, index, hooks, number, total)
        canvas, x0 = step.take(canvas)
        number += 1
        if hooks.callback is not None:
            canvas = changed_by(hooks.callback, index, timesteps[index], canvas, x0)
            if strips.count == 1:
                canvas = canvas.clone()  # the callback may keep what it was given, and what it gave
    if pixels is not None:
        pixels.put_into(canvas, sampler, None)
    return canvas


def check_can_walk(sampler: Sampler, *, goes_back: bool, from_image: bool) -> None:
    """Check that a sampler can do what a walk asks of it.

    Args:
        sampler: the sampler.
        goes_back: whether the walk goes over steps again.
        from_image: whether it starts from images instead of noise.

    Raises:
        SettingsError: naming what the sampler cannot do, and what to use instead.
    """
    if from_image and not isinstance(sampler, GridSampler):
        raise SettingsError(
            "samplers of diffusers cannot start from an image; use one of Cascade's own, "
            "such as ddim."
        )
    if goes_back and not isinstance(sampler, PairSampler):
        raise SettingsError(
            "only the samplers ddim, ddpm and euler-maruyama can repeat steps; use one of them, "
            "or resamplings 1."
        )


def _go_back(
    canvas: Tensor,
    pixels: KnownPixels | None,
    sampler: Sampler,
    fresh: CanvasNoise,
    jump: tuple[int, int],
) -> None:
    """Add the noise of a jump from one state back to an earlier one, in place."""
    assert isinstance(sampler, PairSampler), "walk checks it"
    noise = fresh.normal(*canvas.shape[1:])
    sampler.take_back(canvas, noise, *jump)
    if pixels is not None:
        pixels.follow_back(noise, sampler, *jump)


def changed_by(
    callback: StepCallback, index: int, timestep: int, canvas: Tensor, x0: Tensor
) -> Tensor:
    """The canvas after a callback, which may have replaced it.

    Raises:
        ContractError: if the callback returned anything but a tensor of the same shape as `x_t`.
    """
    changed = callback(index, timestep, {"x_t": canvas, "x0": x0})
    check_kind("the result of a callback", changed, Mapping | None, "a dictionary or None")
    x_t = canvas if changed is None else changed.get("x_t", canvas)
    if not isinstance(x_t, Tensor) or x_t.shape != canvas.shape:
        text = tuple(x_t.shape) if isinstance(x_t, Tensor) else shown(x_t)
        raise ContractError(
            f"x_t of a callback must be a tensor {tuple(canvas.shape)}, got {text}."
        )
    return x_t.to(canvas)


def _start(sampler: Sampler, noise: Tensor, start_from: StartFrom | None) -> tuple[Tensor, int]:
    """The first state and the index of the first step."""
    state = sampler.start(noise)
    if start_from is None:
        return state, 0
    assert isinstance(sampler, GridSampler), "walk checks it"
    image = start_from.image
    beyond = [theirs - mine for mine, theirs in zip(image.shape, noise.shape, strict=False)]
    if len(beyond) == 4 and beyond[:2] == [0, 0] and min(beyond) >= 0 and any(beyond):
        image = F.pad(image, (0, beyond[3], 0, beyond[2]), mode="replicate")
    if image.shape != noise.shape:
        raise ContractError(
            f"the images to start from must be {tuple(noise.shape)}, got {tuple(image.shape)}."
        )
    index = sampler.first_call(start_from.strength)
    return sampler.noised(image.to(noise), noise, index), index


@dataclass(frozen=True)
class _Step:
    """One step of the canvas."""

    sampler: Sampler
    strips: Strips
    fresh: CanvasNoise
    index: int
    hooks: Hooks
    number: int  # of steps taken before it, counting those before the start
    total: int

    def take(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step; returns the next canvas, and x0 of this step if a callback needs it."""
        if self.strips.count == 1 or not self.sampler.by_strips:
            return self.sampler.step(self._gathered(canvas), canvas, self.index, self.fresh)
        x0 = new_canvas(canvas.shape) if self.hooks.callback is not None else canvas
        for strip, output in self._outputs(canvas):
            for rows in row_slices(canvas.shape, strip):
                self.fresh.rows = rows
                part = output[..., rows.start - strip.start : rows.stop - strip.start, :]
                moved, predicted = self.sampler.step(
                    part, canvas[..., rows, :], self.index, self.fresh
                )
                canvas[..., rows, :] = moved
                if x0 is not canvas:
                    x0[..., rows, :] = predicted
            release_pages()
        return canvas, x0

    def _gathered(self, canvas: Tensor) -> Tensor:
        """Gather the output for the whole canvas: (B, P, H, W)."""
        whole = None
        for rows, output in self._outputs(canvas):
            if self.strips.count == 1:
                whole = output
                continue
            if whole is None:
                whole = new_canvas((*output.shape[:2], *canvas.shape[-2:]))
            whole[..., rows, :] = output
        assert whole is not None
        return whole

    def _outputs(self, canvas: Tensor) -> Iterator[tuple[slice, Tensor]]:
        outputs = self.strips.outputs(canvas, self.sampler, self.index)
        for number, (rows, output) in enumerate(outputs, start=1):
            if self.hooks.progress is not None:
                finished = self.number * self.strips.count + number
                self.hooks.progress(finished, self.total * self.strips.count)
            yield rows, output
