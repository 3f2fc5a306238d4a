"""The processes of a run: what they agree on, and how an error in one of them ends all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from cascade.devices import best_device
from cascade.errors import CascadeError, OtherProcessError
from cascade.training.sharding import asks_for_sharding

Item = TypeVar("Item")
UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
SUPPORTED = (DistributedType.NO, DistributedType.FSDP)  # and DDP on any kind of device
OTHER_FAILED = "another process of this run failed."
LONGEST_WAIT = timedelta(hours=1)  # while the main process samples and writes


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
    """Join the other processes, if accelerate or torchrun started some.

    Precision, accumulation and compilation are the recipe's, whatever accelerate's own settings
    say. Every parameter has a gradient in every step and buffers never change, so that DDP need not
    look for unused ones nor send buffers around.

    Raises:
        CascadeError: for a way of distributing that is not supported.
        OtherProcessError: the same, in other processes than the first.
    """
    try:
        return _join()
    except CascadeError as error:
        if os.environ.get("RANK", "0") != "0":  # all of them come here, and one speaks
            raise OtherProcessError(OTHER_FAILED) from error
        raise


def _join() -> Accelerator:
    for key, name in UNSUPPORTED.items():
        if os.environ.get(key, "false").lower() == "true":
            raise CascadeError(f"training with {name} is not supported; use DDP or FSDP.")
    asks_for_sharding()  # accelerate would stumble over what is not supported
    try:
        accelerator = Accelerator(
            mixed_precision="no",
            dynamo_backend="no",
            cpu=best_device().type == "cpu",  # or processes on the CPU would not find each other
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    gradient_as_bucket_view=True, broadcast_buffers=False
                ),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
        )
    except ValueError as error:
        raise CascadeError(f"accelerate's settings do not fit: {error}") from error
    kind = accelerator.distributed_type
    if kind not in SUPPORTED and not kind.value.startswith("MULTI_"):
        raise CascadeError(
            f"distributed training by {kind.value} is not supported; use DDP or FSDP."
        )
    return accelerator


@contextmanager
def together() -> Iterator[None]:
    """Wait for all processes at the end of a block, and end them all if it failed in one.

    All of them must come here, and inside the block they must not wait for each other.

    Raises:
        Exception: that of the block, in the first process in which it failed.
        OtherProcessError: in all others, so that one process speaks.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    first, own = _first_that_failed(error is not None)
    if error is not None and first == own:
        raise error
    if first is not None:
        raise OtherProcessError(OTHER_FAILED) from error


def in_step(items: Iterable[Item]) -> Iterator[Item]:
    """Go through items as the other processes do, until one of them fails to get its next.

    Raises:
        OtherProcessError: if it was not this one.
    """
    waiting = iter(items)
    while True:
        with together():
            item = next(waiting, None)
        if item is None:
            return
        yield item


def _first_that_failed(failed: bool) -> tuple[int | None, int | None]:
    """Rank of the first process that says so, None if none does; and that of this one."""
    if not torch.distributed.is_initialized():
        return (0 if failed else None), 0
    state = PartialState()
    count, own = state.num_processes, state.process_index
    first = torch.tensor(own if failed else count, device=state.device)
    torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
    return (None if first == count else int(first)), own


def check_same(accelerator: Accelerator, values: Mapping[str, int]) -> None:
    """Check that all processes found the same: machines may not share their disks.

    Args:
        accelerator: of the run.
        values: whole numbers, by what they count.

    Raises:
        CascadeError: in the main process, naming the first that differs.
        OtherProcessError: in the others.
    """
    if accelerator.num_processes == 1:
        return
    own = torch.tensor(list(values.values()), dtype=torch.long, device=accelerator.device)
    least, most = own.clone(), own.clone()
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    for name, low, high in zip(values, least.tolist(), most.tolist(), strict=True):
        if low != high:
            if not accelerator.is_main_process:
                raise OtherProcessError(OTHER_FAILED)
            raise CascadeError(
                f"the processes of this run found {low} to {high} {name}; all machines need the "
                "same data, and one folder of the run that they share."
            )


def all_of(accelerator: Accelerator, items: Sequence[str]) -> list[str]:
    """What all processes have, in the order of their ranks; all of them must come here."""
    count = accelerator.num_processes
    if count == 1:
        return list(items)
    total = torch.tensor(len(items), device=accelerator.device)
    torch.distributed.all_reduce(total)
    if not int(total):
        return []
    found: list[list[str]] = [[] for _ in range(count)]
    torch.distributed.all_gather_object(found, list(items))
    return [item for part in found for item in part]


def agree(accelerator: Accelerator, vote: StepVote) -> StepVote:
    """Sum the votes of all processes, so that all of them do the same next."""
    if accelerator.num_processes == 1:
        return vote
    values = torch.tensor(astuple(vote), device=accelerator.device)
    torch.distributed.all_reduce(values)
    return StepVote(*values.tolist())
