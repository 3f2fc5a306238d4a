"""The processes of a run and what they agree on after every step."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from accelerate import Accelerator, DistributedType

from cascade.devices import best_device
from cascade.errors import CascadeError


@dataclass(frozen=True)
class StepVote:
    """What one process, or all of them together, say of a step.

    Attributes:
        loss: its part of the batch's mean loss; summed up, the whole.
        bad: above 0 if loss or gradient is not finite.
        stop: above 0 if the run should end.
    """

    loss: float
    bad: float
    stop: float


def make_accelerator() -> Accelerator:
    """Precision and accumulation are the recipe's, whatever accelerate's own settings say.

    Raises:
        CascadeError: for a way of distributing that is not supported.
    """
    accelerator = Accelerator(
        mixed_precision="no",
        gradient_accumulation_steps=1,
        cpu=best_device().type == "cpu",  # or processes on the CPU would not find each other
    )
    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not kind.value.startswith("MULTI_"):
        raise CascadeError(f"distributed training by {kind.value} is not supported; use DDP.")
    return accelerator


def agree(accelerator: Accelerator, vote: StepVote) -> StepVote:
    """Sum the votes of all processes, so that all of them do the same next."""
    if accelerator.num_processes == 1:
        return vote
    values = torch.tensor(astuple(vote), device=accelerator.device)
    torch.distributed.all_reduce(values)
    return StepVote(*values.tolist())
