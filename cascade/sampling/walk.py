"""The walk from noise to images, for whole images and for tiles alike.

A canvas holds the images of a batch. At every step, the network's outputs come in strips of rows:
one strip for whole images, one for each row of tiles otherwise. Then the canvas takes the step.

Shapes: B images, C channels, H and W pixels of the canvas, P channels of the network's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cascade.arguments import check_callable, check_kind, shown
from cascade.errors import ContractError
from cascade.sampling.canvas import CanvasNoise, new_canvas
from cascade.sampling.samplers.sampler import GridSampler, Sampler

Progress = Callable[[int, int], None]  # (done, total), counted in strips of all steps
StepCallback = Callable[[int, int, dict[str, Tensor]], Mapping[str, Any] | None]


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
class Known:
    """Pixels of the result that are known beforehand.

    Attributes:
        image: (B, C, h, w) in [-1, 1], no larger than the canvas; B may be 1 for all images.
        mask: (h, w) bool, True at known pixels.

    Raises:
        ContractError: if they are no tensors of such a shape.
    """

    image: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        for name in ("image", "mask"):
            check_kind(f"the {name} of known pixels", getattr(self, name), Tensor, "a tensor")
        if self.image.ndim != 4 or self.mask.ndim != 2 or self.mask.dtype != torch.bool:
            raise ContractError(
                "known pixels must be an image (B, C, h, w) and a bool mask (h, w), got "
                f"{tuple(self.image.shape)} and {tuple(self.mask.shape)} {self.mask.dtype}."
            )


@dataclass(frozen=True)
class StartFrom:
    """Images to start from instead of noise (SDEdit, Meng et al. 2021, arXiv 2108.01073).

    Attributes:
        image: (B, C, H, W) in [-1, 1].
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
        start_from: images to start from; None for noise.
        callback: called after every step with its index, its timestep and the tensors `x_t` and
            `x0` by name; it may return `{"x_t": ...}` to replace the images. With tiles, later
            steps overwrite `x_t`.
        progress: called after every strip with the numbers of strips done and in total.
    """

    known: Known | None = None
    start_from: StartFrom | None = None
    callback: StepCallback | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_kind("known", self.known, Known | None, "Known(image, mask)")
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
        ContractError: if the sampler cannot start from an image, or an image has another size.
    """
    pixels = None if hooks.known is None else _KnownPixels(hooks.known, noise)
    canvas, first = _start(sampler, noise, hooks.start_from)
    timesteps = sampler.timesteps
    for index in range(first, len(timesteps)):
        fresh.new_step()
        if pixels is not None:
            pixels.put_into(canvas, sampler, index)
        step = _Step(sampler, strips, fresh, index, hooks, len(timesteps))
        canvas, x0 = step.take(canvas)
        if hooks.callback is not None:
            canvas = _changed_by(hooks.callback, index, timesteps[index], canvas, x0)
    if pixels is not None:
        pixels.put_into(canvas, sampler, None)
    return canvas


def _changed_by(
    callback: StepCallback, index: int, timestep: int, canvas: Tensor, x0: Tensor
) -> Tensor:
    """The canvas after a callback, which may have replaced it."""
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
    if not isinstance(sampler, GridSampler):
        raise ContractError(
            "samplers of diffusers cannot start from an image; use one of our own, such as ddim."
        )
    image = start_from.image
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
    total: int

    def take(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """Take the step; returns the next canvas, and x0 of this step if a callback needs it."""
        if self.strips.count == 1 or not self.sampler.by_strips:
            return self.sampler.step(self._gathered(canvas), canvas, self.index, self.fresh)
        x0 = new_canvas(canvas.shape) if self.hooks.callback is not None else canvas
        for rows, output in self._outputs(canvas):
            self.fresh.rows = rows
            moved, predicted = self.sampler.step(
                output, canvas[..., rows, :], self.index, self.fresh
            )
            canvas[..., rows, :] = moved
            if x0 is not canvas:
                x0[..., rows, :] = predicted
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
                finished = self.index * self.strips.count + number
                self.hooks.progress(finished, self.total * self.strips.count)
            yield rows, output


class _KnownPixels:
    """Known pixels with the noise that the canvas has there at the start."""

    def __init__(self, pixels: Known, noise: Tensor) -> None:
        size, channels = pixels.mask.shape, noise.shape[1]
        fits = all(mine <= theirs for mine, theirs in zip(size, noise.shape[-2:], strict=True))
        if not fits or pixels.image.shape[-3:] != (channels, *size):
            raise ContractError(
                f"known pixels must be an image (B, {channels}, h, w) and a mask (h, w), no larger "
                f"than {tuple(noise.shape[-2:])}, got {tuple(pixels.image.shape)} and "
                f"{tuple(size)}."
            )
        self._places = pixels.mask.to(noise.device).nonzero(as_tuple=True)
        if len(pixels.image) not in (1, len(noise)):
            raise ContractError(
                f"known pixels must be for all {len(noise)} images or for 1, got "
                f"{len(pixels.image)}."
            )
        image = pixels.image.expand(noise.shape[0], -1, -1, -1).to(noise)
        self._x0 = image[:, :, *self._places][..., None]  # (B, C, N, 1)
        self._eps = noise[:, :, *self._places][..., None]

    def put_into(self, canvas: Tensor, sampler: Sampler, index: int | None) -> None:
        """Write the pixels into the canvas, as noisy as before step `index`, or clean for None."""
        value = self._x0 if index is None else sampler.noised(self._x0, self._eps, index)
        canvas[:, :, *self._places] = value[..., 0].to(canvas)
