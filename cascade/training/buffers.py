"""The buffers that change in training, such as the running statistics of batch norms.

They belong to the newest weights and are not averaged: the averaged stage takes them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

MAIN_RANK = 0


def changing_buffers(*modules: nn.Module | None) -> list[Tensor]:
    """The buffers that a step may change: those of modules in training mode.

    Frozen parts, such as a pretrained encoder, stay in evaluation mode.

    Args:
        modules: what is trained; None is left out.
    """
    parts = [part for module in modules if module is not None for part in module.modules()]
    return [each for part in parts if part.training for each in part.buffers(recurse=False)]


@torch.no_grad()
def settle_buffers(
    buffers: Sequence[Tensor], before: Sequence[Tensor], accelerator: Accelerator, *, keep: bool
) -> None:
    """Make the buffers the same in all processes after a step; all of them must call this.

    Each process changed its own by its share of the images. As in DDP, those of the main process
    count.

    Args:
        buffers: what `changing_buffers` returned; changed in place.
        before: copies of them from before the step.
        accelerator: the processes of the run.
        keep: whether the step counts; else the buffers go back to what they were.
    """
    for buffer, old in zip(buffers, before, strict=True):
        if not keep:
            buffer.copy_(old)
        elif accelerator.num_processes > 1:
            torch.distributed.broadcast(buffer, MAIN_RANK)
