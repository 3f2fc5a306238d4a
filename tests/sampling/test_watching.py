"""A watcher sees every step of its own thread, and changes nothing."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks
from cascade.sampling.watching import watched
from cascade.stage import Run

STEPS = 4  # of the stage


@pytest.fixture
def draw(base_stage):
    """A function that draws two images with options of `Run`."""

    def images(**options) -> Tensor:
        return base_stage.run([1, 2], run=Run(**options))

    return images


@pytest.mark.parametrize("tiles", [None, Tiles(8, 2)])
def test_a_watcher_sees_every_step_and_changes_nothing(draw, tiles):
    images: list[Tensor] = []
    with watched(lambda x0: images.append(x0.clone())):
        result = draw(tiles=tiles)
    assert torch.equal(result, draw(tiles=tiles))
    assert [tuple(x0.shape) for x0 in images] == [(2, 3, 16, 16)] * STEPS
    assert torch.equal(images[-1], result)


def test_callbacks_are_served_too(draw):
    steps, images = [], []
    hooks = Hooks(callback=lambda index, t, tensors: steps.append(index))
    with watched(images.append):
        draw(hooks=hooks)
    assert len(steps) == len(images) == STEPS
    draw(hooks=hooks)
    assert len(images) == STEPS


def test_other_threads_are_not_watched(draw):
    images: list[Tensor] = []
    with watched(images.append):
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
    assert images == []
