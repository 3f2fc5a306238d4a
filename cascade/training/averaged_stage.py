"""A copy of the stage in training with averaged weights, for sampling, measuring and saving."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from cascade.stage import Stage
from cascade.training.processes import together
from cascade.training.sharding import full


class AveragedStage:
    """A whole stage beside the one in training.

    Args:
        stage: the stage in training.
        accelerator: the accelerator of the run.
        sharded: whether the weights in training are sharded. The copy is then off the device, which
            lacks room, and only in the main process.

    Attributes:
        stage: the copy; in all processes but the main one of a sharded run on the device `meta`.
    """

    def __init__(self, stage: Stage, accelerator: Accelerator, *, sharded: bool) -> None:
        self._accelerator = accelerator
        self._sharded = sharded
        device = accelerator.device
        if sharded:
            device = "cpu" if accelerator.is_main_process else "meta"
        self._trained = stage
        self._is_trained = [parameter.requires_grad for parameter in stage.parameters()]
        self.stage = copy.deepcopy(stage).to(device).eval().requires_grad_(False)

    def filled(self, values: Sequence[Tensor]) -> Stage:
        """The stage with certain weights; all processes must call it.

        Its buffers, such as the running statistics of batch norms, are those of the stage in
        training, because they are not averaged.

        Args:
            values: its parameters, or this process's shards of them.
        """
        with torch.no_grad():
            for parameter, value in zip(self.stage.parameters(), values, strict=True):
                parameter.copy_(full(value))
            for buffer, value in zip(self.stage.buffers(), self._trained.buffers(), strict=True):
                buffer.copy_(value)
        return self.stage

    def trainable(self) -> Stage:
        """The stage as it leaves the run: further training updates what this run has updated."""
        for parameter, is_trained in zip(self.stage.parameters(), self._is_trained, strict=True):
            parameter.requires_grad_(is_trained)
        return self.stage

    @contextmanager
    def on_device(self, values: Sequence[Tensor]) -> Iterator[Stage]:
        """The stage with certain weights on the device; all processes must enter the block."""
        stage = self.filled(values)
        moved = self._sharded and self._accelerator.is_main_process
        with together():
            stage = stage.to(self._accelerator.device) if moved else stage
        yield stage
        if moved:
            stage.to("cpu")  # the next step needs the room
