"""The walk from noise to images, the same one for whole images and for tiles.

A canvas holds the images of a batch. At every step the network's outputs for it come in strips of
rows: one strip for a whole image, many for tiles. The canvas then takes the step.

Shapes: B images, C channels, H and W pixels of the canvas, P channels of the network's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from cascade.errors import ContractError
from cascade.sampling.canvas import CanvasNoise, new_canvas
from cascade.sampling.samplers.sampler import PairSampler, Sampler

Progress = Callable[[int, int], None]  # (done, total), in units of one strip of one step
StepCallback = Callable[[int, int, dict[str, Tensor]], Mapping[str, Any] | None]


class Strips(Protocol):
    """The network over a canvas."""

    @property
    def count(self) -> int:
        """Number of strips in one step."""
        ...

    def outputs(
        self, canvas: Tensor, sampler: Sampler, index: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """The outputs (B, P, rows, W) of call `index`, with their rows, from the top.

        A strip comes when no later one reads the canvas there, so that the caller may change it.
        """
        ...


@dataclass(frozen=True)
class Known:
    """Pixels of the result that are given.

    Attributes:
        image: (B, C, H, W) in [-1, 1]; B may be 1 for all images.
        mask: (H, W) bool, true where the image holds.
    """

    image: Tensor
    mask: Tensor


@dataclass(frozen=True)
class StartFrom:
    """Images to change instead of drawing new ones (SDEdit, Meng et al. 2021, arXiv 2108.01073).

    Attributes:
        image: (B, C, H, W) in [-1, 1].
        strength: the share of the steps that are taken, in (0, 1].
    """

    image: Tensor
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What may be done during a walk.

    Attributes:
        known: pixels that are given. Noised as the canvas is, they replace it there before every
            step, so that the rest is drawn to fit (Lugmayr et al. 2022, arXiv 2201.09865).
        start_from: images to change.
        callback: called after every step with its index, its timestep and `{"x_t", "x0"}`; it may
            return a new `x_t`.
        progress: called with how many strips the network has done and how many there are.
    """

    known: Known | None = None
    start_from: StartFrom | None = None
    callback: StepCallback | None = None
    progress: Progress | None = None


def walk(
    sampler: Sampler, strips: Strips, noise: Tensor, fresh: CanvasNoise, hooks: Hooks
) -> Tensor:
    """Go from noise to images.

    Args:
        sampler: made for this batch.
        strips: the network.
        noise: (B, C, H, W), what the walk starts from; it may be overwritten.
        fresh: noise of the steps.
        hooks: what else is done on the way.

    Returns:
        (B, C, H, W) float32, the last predicted images.

    Raises:
        ContractError: if the sampler cannot start from an image, or an image has another size.
    """
    known = None if hooks.known is None else _Held(hooks.known, noise)
    canvas, first = _start(sampler, noise, hooks.start_from)
    timesteps = sampler.timesteps
    for index in range(first, len(timesteps)):
        fresh.new_step()
        if known is not None:
            known.put_into(canvas, sampler, index)
        step = _Step(sampler, strips, fresh, index, hooks, len(timesteps))
        canvas, x0 = step.take(canvas)
        if hooks.callback is not None:
            changed = hooks.callback(index, timesteps[index], {"x_t": canvas, "x0": x0}) or {}
            canvas = changed.get("x_t", canvas)
    if known is not None:
        known.put_into(canvas, sampler, None)
    return canvas


def _start(sampler: Sampler, noise: Tensor, start_from: StartFrom | None) -> tuple[Tensor, int]:
    """The first state and the index of the first call."""
    if start_from is None:
        return sampler.start(noise), 0
    if not isinstance(sampler, PairSampler):
        raise ContractError("only the samplers ddim and ddpm can start from an image.")
    image = start_from.image
    if image.shape != noise.shape:
        raise ContractError(
            f"the images to start from must be {tuple(noise.shape)}, got {tuple(image.shape)}."
        )
    index = sampler.first_call(start_from.strength)
    return sampler.noised(image.to(noise), noise, index), index


@dataclass(frozen=True)
class _Step:
    """One step of the whole canvas."""

    sampler: Sampler
    strips: Strips
    fresh: CanvasNoise
    index: int
    hooks: Hooks
    total: int

    def take(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """The next canvas and the predicted images; the latter only if a callback asks for them."""
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
        """The output for the whole canvas."""
        gathered = None
        for rows, output in self._outputs(canvas):
            if self.strips.count == 1:
                return output
            if gathered is None:
                gathered = new_canvas((*output.shape[:2], *canvas.shape[-2:]))
            gathered[..., rows, :] = output
        assert gathered is not None
        return gathered

    def _outputs(self, canvas: Tensor) -> Iterator[tuple[slice, Tensor]]:
        outputs = self.strips.outputs(canvas, self.sampler, self.index)
        for number, (rows, output) in enumerate(outputs, start=1):
            if self.hooks.progress is not None:
                done = self.index * self.strips.count + number
                self.hooks.progress(done, self.total * self.strips.count)
            yield rows, output


class _Held:
    """The known pixels, with the canvas's own first noise there."""

    def __init__(self, known: Known, noise: Tensor) -> None:
        size, channels = known.mask.shape, noise.shape[1]
        fits = all(mine <= theirs for mine, theirs in zip(size, noise.shape[-2:], strict=True))
        if not fits or known.image.shape[-3:] != (channels, *size):
            raise ContractError(
                f"known pixels must be an image (B, {channels}, H, W) and a mask (H, W), no larger "
                f"than {tuple(noise.shape[-2:])}, got {tuple(known.image.shape)} and "
                f"{tuple(size)}."
            )
        self._places = known.mask.to(noise.device).nonzero(as_tuple=True)
        image = known.image.expand(noise.shape[0], -1, -1, -1).to(noise)
        self._x0 = image[:, :, *self._places][..., None]  # (B, C, N, 1)
        self._eps = noise[:, :, *self._places][..., None]

    def put_into(self, canvas: Tensor, sampler: Sampler, index: int | None) -> None:
        """Put them where they belong, as noisy as before call `index`, or clean for None."""
        value = self._x0 if index is None else sampler.noised(self._x0, self._eps, index)
        canvas[:, :, *self._places] = value[..., 0].to(canvas)
