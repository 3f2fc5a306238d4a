"""Coordinates the processes of a run: shared decisions, and errors that stop all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from cascade.contract import Contract
from cascade.devices import best_device, find_device
from cascade.errors import CascadeError, OtherProcessError
from cascade.stage import Stage
from cascade.training.sharding import asks_for_sharding

Item = TypeVar("Item")
UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
SUPPORTED = (DistributedType.NO, DistributedType.FSDP)  # besides DDP on any kind of device
DEVICE_VARIABLE = "ACCELERATE_TORCH_DEVICE"
OTHER_FAILED = "another process of this run failed."
LONGEST_WAIT = timedelta(hours=1)  # while the main process samples and writes


@dataclass(frozen=True)
class StepVote:
    """The report of one process about a step, or the sum over all processes.

    Attributes:
        loss: this process's share of the batch's mean loss; the sum is the mean loss.
        bad: above 0 if the loss or gradient is not finite.
        stop: above 0 if the run should stop.
    """

    loss: float
    bad: float
    stop: float


def make_accelerator(device: str | None = None) -> Accelerator:
    """Join the other processes, if accelerate or torchrun started any.

    Precision, accumulation and compilation follow the training settings, whatever accelerate's own
    settings say. DDP need not look for unused parameters, because every parameter gets a gradient
    in every step, or broadcast buffers, which the run does after each step.

    Args:
        device: device of this process, such as `cpu`, `cuda:1` or `mps`; of several processes, only
            the kind of their devices. None for the device of an earlier call in this process, and
            at first for the one that accelerate chooses.

    Raises:
        CascadeError: if the kind of distributed training is not supported, or the device cannot be
            used.
        OtherProcessError: in place of that error, in all processes but the first.
    """
    try:
        return _join(device)
    except CascadeError as error:
        if os.environ.get("RANK", "0") != "0":  # all processes fail here, and the first reports it
            raise OtherProcessError(OTHER_FAILED) from error
        raise


def _join(device: str | None) -> Accelerator:
    for key, name in UNSUPPORTED.items():
        if os.environ.get(key, "false").lower() == "true":
            raise CascadeError(f"training with {name} is not supported; use DDP or FSDP.")
    asks_for_sharding()  # checks FSDP settings that accelerate would fail on
    with _on_device(device) as kind:
        accelerator = _accelerator(on_cpu=kind == "cpu")
    kind = accelerator.distributed_type
    if kind not in SUPPORTED and not kind.value.startswith("MULTI_"):
        raise CascadeError(
            f"distributed training with {kind.value} is not supported; use DDP or FSDP."
        )
    return accelerator


def _accelerator(*, on_cpu: bool) -> Accelerator:
    try:
        return Accelerator(
            mixed_precision="no",
            dynamo_backend="no",
            cpu=on_cpu,  # needed for processes on the CPU to connect
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    gradient_as_bucket_view=True, broadcast_buffers=False
                ),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
        )
    except ValueError as error:
        raise CascadeError(f"accelerate's settings do not fit: {error}") from error


@contextmanager
def _on_device(name: str | None) -> Iterator[str]:
    """Make accelerate choose a device inside the block; yields the kind of device.

    Raises:
        CascadeError: if the device cannot be used.
    """
    if name is None:
        device = PartialState().device if PartialState._shared_state else None
        yield (device or best_device()).type
    elif "LOCAL_RANK" in os.environ:  # a launcher gives each process a device of its own
        yield _check_kind(name)
    else:
        device = find_device(name)
        if device.index is not None and device.type != "cpu":  # cpu:0 is the CPU
            torch.accelerator.set_device_index(device.index)
        if PartialState._shared_state and PartialState().device != device:
            AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run
        before = os.environ.get(DEVICE_VARIABLE)
        os.environ[DEVICE_VARIABLE] = str(device)
        try:
            yield device.type
        finally:
            os.environ.pop(DEVICE_VARIABLE)
            os.environ.update({} if before is None else {DEVICE_VARIABLE: before})


def _check_kind(name: str) -> str:
    """Check that all processes can use devices of a kind, which the launcher hands out."""
    if name not in {"cpu", best_device().type}:
        raise CascadeError(
            f"each process gets its device from the launcher, so that the device must be cpu or "
            f"{best_device().type}, got {name!r}."
        )
    return name


def is_main_process() -> bool:
    """Whether this process is the one that writes files and reports."""
    return PartialState().is_main_process


@contextmanager
def together() -> Iterator[None]:
    """Wait for all processes at the end of a block; if it fails in one, raise in all.

    All processes must enter the block, and must not wait for each other inside it.

    Raises:
        Exception: the error of the block, in the first process in which it failed.
        OtherProcessError: in all other processes, so that only one reports the error.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    first_rank, own_rank = _first_failed_rank(failure is not None)
    if failure is not None and first_rank == own_rank:
        raise failure
    if first_rank is not None:
        raise OtherProcessError(OTHER_FAILED) from failure


def in_step(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over items in step with the other processes; if one of them fails, raise in all.

    Args:
        items: this process's items, as many as in every other process.

    Raises:
        OtherProcessError: if another process failed to get its next item.
    """
    iterator = iter(items)
    while True:
        with together():
            item = next(iterator, None)
        if item is None:
            return
        yield item


def _first_failed_rank(failed: bool) -> tuple[int | None, int]:
    """The lowest rank that failed, or None; and the rank of this process."""
    if not torch.distributed.is_initialized():
        return (0 if failed else None), 0
    state = PartialState()
    count, own_rank = state.num_processes, state.process_index
    first = torch.tensor(own_rank if failed else count, device=state.device)
    torch.distributed.all_reduce(first, torch.distributed.ReduceOp.MIN)
    return (None if first == count else int(first)), own_rank


def check_same(accelerator: Accelerator, values: Mapping[str, int]) -> None:
    """Check that all processes found the same data; machines may not share their disks.

    Args:
        accelerator: the accelerator of the run.
        values: counts to compare, by the words that name them in the message.

    Raises:
        CascadeError: in the main process, naming the first count that differs.
        OtherProcessError: in the other processes.
    """
    if accelerator.num_processes == 1:
        return
    own = torch.tensor(list(values.values()), dtype=torch.long, device=accelerator.device)
    for name, low, high in zip(values, *_ranges(own), strict=True):
        if low != high:
            if not accelerator.is_main_process:
                raise OtherProcessError(OTHER_FAILED)
            raise CascadeError(
                f"the processes of this run found {low} to {high} {name}; all machines need the "
                "same data and must share the folder of the run."
            )


def _ranges(values: torch.Tensor) -> tuple[list[int], list[int]]:
    """The least and the largest of each value over all processes."""
    least, most = values.clone(), values.clone()
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return least.tolist(), most.tolist()


def all_of(accelerator: Accelerator, items: Sequence[Item]) -> list[Item]:
    """Collect the items of all processes, in the order of their ranks.

    All processes must call this.
    """
    count = accelerator.num_processes
    if count == 1:
        return list(items)
    total = torch.tensor(len(items), device=accelerator.device)
    torch.distributed.all_reduce(total)
    if not int(total):
        return []
    parts: list[list[Item]] = [[] for _ in range(count)]
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def agree(accelerator: Accelerator, vote: StepVote) -> StepVote:
    """Sum the votes of all processes, so that all make the same decision."""
    if accelerator.num_processes == 1:
        return vote
    values = torch.tensor(astuple(vote), device=accelerator.device)
    torch.distributed.all_reduce(values)
    return StepVote(*values.tolist())


def share_contract(accelerator: Accelerator, stage: Stage, before: Contract) -> None:
    """Give a stage the contract of the process that changed it, such as by the scale of latents.

    Args:
        accelerator: of this process.
        stage: the stage.
        before: the contract that all processes had.
    """
    changed = [] if stage.contract is before else [stage.contract]
    for contract in all_of(accelerator, changed):
        stage.contract = contract
