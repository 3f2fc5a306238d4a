"""Shards a network that is too large for one device: FSDP2, after ZeRO (arXiv 1910.02054).

Each process keeps a part of every weight, and therefore of its gradient, averages and moments. To
compute, it gathers one block at a time. accelerate's settings decide whether to shard; this module
decides how, with torch's own `fully_shard`, because accelerate does not shard on the CPU and
requires optimisers that exist before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from cascade.devices import uses_bf16
from cascade.errors import CascadeError
from cascade.networks.convolutional_head import DetailBlock
from cascade.networks.transformer import TransformerBlock
from cascade.networks.unet_layers import (
    Attention,
    Downsample,
    FeedForward,
    ResnetBlock,
    Upsample,
)
from cascade.training.objectives.objective import Learner
from cascade.training.settings import TrainingSettings

BLOCKS = (
    TransformerBlock,
    DetailBlock,
    ResnetBlock,
    Attention,
    FeedForward,
    Downsample,
    Upsample,
)


def asks_for_sharding() -> bool:
    """Whether accelerate's settings ask for FSDP.

    Raises:
        CascadeError: if they ask for a variant that is not supported.
    """
    if not _is_on("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise CascadeError("FSDP is supported in version 2 only; launch with --fsdp_version 2.")
    if _is_on("FSDP_OFFLOAD_PARAMS"):
        raise CascadeError(
            "FSDP with offloading to the CPU is not supported; launch with "
            "--fsdp_offload_params false."
        )
    return True


def shard(
    learner: Learner, settings: TrainingSettings, *, device: torch.device, processes: int
) -> None:
    """Split a learner's weights among the processes; this one keeps its part on its device.

    With bf16, blocks are gathered in bf16, so that no full-precision copy is kept for the backward
    pass. Gradients are summed in float32.

    Args:
        learner: the stage and its objective, equal in all processes; changed in place.
        settings: settings of the run.
        device: device of this process.
        processes: number of processes.

    Raises:
        CascadeError: if the optimiser or the compiler cannot work with split weights.
    """
    _check_shardable(settings)
    half = torch.bfloat16 if uses_bf16(device, settings.precision) else None
    policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(device.type, (processes,))
    reshard = _is_on("FSDP_RESHARD_AFTER_FORWARD", "true")
    for block in [module for module in learner.modules() if isinstance(module, BLOCKS)]:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(learner, mesh=mesh, mp_policy=policy)
    if device.type == "cpu":  # gloo can sum, but not average
        for module in learner.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)


def _check_shardable(settings: TrainingSettings) -> None:
    if settings.optimiser == "muon":
        raise CascadeError(
            "the optimiser muon needs whole weights, which FSDP splits; use adamw, or DDP."
        )
    if settings.compile:
        raise CascadeError("compile is not supported with FSDP; switch one of them off.")


def full(tensor: Tensor) -> Tensor:
    """The whole tensor; if it is sharded, all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Gather many tensors, one after another; all processes must call this.

    Args:
        tensors: sharded or whole tensors.
        keep: whether this process needs the result.

    Returns:
        All tensors whole, those that were sharded on the CPU; empty without `keep`.
    """
    result = {}
    for name, tensor in tensors.items():
        whole = full(tensor.detach())
        if keep:
            result[name] = whole.cpu() if isinstance(tensor, DTensor) else whole
    return result


def cut_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Shard a tensor like another one.

    Args:
        tensor: a whole tensor, equal in all processes.
        other: a tensor of the same shape, sharded or not.

    Returns:
        This process's part of `tensor`, or `tensor` itself if `other` is not sharded.
    """
    if not isinstance(other, DTensor):
        return tensor
    part = distribute_tensor(
        tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None
    )
    return part.clone()  # a view would keep the whole tensor in memory


def _is_on(key: str, default: str = "false") -> bool:
    return os.environ.get(key, default).lower() in ("true", "1", "yes")
