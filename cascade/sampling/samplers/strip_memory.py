"""What a scheduler of diffusers remembers between steps, for each strip of a canvas.

A multistep scheduler keeps earlier predictions of the images that it is given. To step strip by
strip, it gets those of each strip back before the step; they wait in canvases of their own, which
may be files.

Shapes: B images, C channels, H and W pixels of the canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor

from cascade.sampling.canvas import new_canvas

Slot = tuple[str, int]  # name of an attribute, and place in it if it is a list


@final
class StripMemory:
    """Makes one scheduler work on the strips of a canvas in turn.

    Args:
        scheduler: the scheduler, which counts its steps and remembers images in attributes.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._canvases: dict[Slot, Tensor] = {}
        self._index = -1
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] | None = None  # None before the first strip

    def turn_to(self, index: int) -> None:
        """Let the scheduler count on to a step, before which all strips have taken the last one."""
        if self._after is None or index == self._index:
            return
        self._index, self._before = index, self._after
        self._put(self._before)

    @contextmanager
    def strip(self, index: int, rows: slice, shape: Sequence[int]) -> Iterator[None]:
        """Give the scheduler the memory of a strip during one step.

        Args:
            index: number of the step.
            rows: rows of the strip.
            shape: (B, C, H, W) of the canvas.
        """
        if self._after is None and index != self._index:
            self._index, self._before = index, _copied(vars(self._scheduler))
        self.turn_to(index)
        self._put(self._before)
        for (name, place), canvas in self._canvases.items():
            self._put_image(name, place, canvas[..., rows, :])
        yield
        self._after = _copied(vars(self._scheduler))
        for slot, image in _images(self._after):
            if slot not in self._canvases:
                self._canvases[slot] = new_canvas(shape)
            self._canvases[slot][..., rows, :] = image
        self._put(self._before)  # the other strips have still to take this step

    def _put(self, values: dict[str, Any]) -> None:
        vars(self._scheduler).update(_copied(values))

    def _put_image(self, name: str, place: int, image: Tensor) -> None:
        """Replace an image that the scheduler remembers, unless it has forgotten it since."""
        value = getattr(self._scheduler, name)
        if isinstance(value, list) and _is_image(value[place]):
            value[place] = image
        elif _is_image(value):
            setattr(self._scheduler, name, image)


def _images(values: dict[str, Any]) -> Iterator[tuple[Slot, Tensor]]:
    """The images among the values of attributes and in their lists."""
    for name, value in values.items():
        for place, each in enumerate(value if isinstance(value, list) else [value]):
            if _is_image(each):
                yield (name, place), each


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    """A copy whose lists can change."""
    return {name: list(each) if isinstance(each, list) else each for name, each in values.items()}
