"""The buffers that change in training, such as the running statistics of batch norms.

They belong to the newest weights and are not averaged: the averaged stage takes them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

MAIN_RANK = 0


class BufferPlace(NamedTuple):
    """Where a buffer is: a step may put another tensor in its place."""

    module: nn.Module
    name: str

    def value(self) -> Tensor:
        return self.module.get_buffer(self.name)


def changing_buffers(*modules: nn.Module | None) -> list[BufferPlace]:
    """The buffers that a step may change: the saved ones of modules in training mode.

    Frozen parts, such as a pretrained encoder, stay in evaluation mode; buffers that are not saved
    with the weights are constants.

    Args:
        modules: what is trained; None is left out.
    """
    parts = [part for module in modules if module is not None for part in module.modules()]
    return [
        BufferPlace(part, name)
        for part in parts
        if part.training
        for name, _ in part.named_buffers(recurse=False)
        if name not in part._non_persistent_buffers_set
    ]


@torch.no_grad()
def settle_buffers(
    places: Sequence[BufferPlace], before: Sequence[Tensor], accelerator: Accelerator, *, keep: bool
) -> None:
    """Make the buffers the same in all processes after a step; all of them must call this.

    Each process changed its own by its share of the images. As in DDP, those of the main process
    count.

    Args:
        places: what `changing_buffers` returned; the buffers are changed in place.
        before: copies of them from before the step.
        accelerator: the processes of the run.
        keep: whether the step counts; else the buffers go back to what they were.
    """
    if not keep:
        for place, old in zip(places, before, strict=True):
            place.value().copy_(old)
    elif accelerator.num_processes > 1:
        _broadcast([place.value() for place in places])


def _broadcast(buffers: Sequence[Tensor]) -> None:
    """Give all processes the buffers of the main one, by one message per type of their numbers."""
    by_type: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for buffer in buffers:
        by_type.setdefault((buffer.dtype, buffer.device), []).append(buffer)
    for group in by_type.values():
        joined = torch.cat([buffer.flatten() for buffer in group])
        torch.distributed.broadcast(joined, MAIN_RANK)
        parts = joined.split([buffer.numel() for buffer in group])
        for buffer, part in zip(group, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
