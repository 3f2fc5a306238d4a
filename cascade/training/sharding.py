"""Sharding of a network that is too large for one device: FSDP2, after ZeRO (arXiv 1910.02054).

Each process keeps a part of every weight, and so of its gradient, averages and moments; while it
computes, it has one block whole at a time. accelerate's settings say whether; how the network is
cut is said here, and it is done with torch's own `fully_shard`, since accelerate would not do it on
the CPU and ties it to optimisers that are made before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from cascade.devices import uses_bf16
from cascade.errors import CascadeError
from cascade.networks.transformer import TransformerBlock
from cascade.training.objectives.objective import Learner
from cascade.training.settings import TrainingSettings

BLOCKS = (TransformerBlock, ResnetBlock2D, Attention, Downsample2D, Upsample2D)


def asks_for_sharding() -> bool:
    """Whether accelerate's settings ask for FSDP.

    Raises:
        CascadeError: if they ask for a kind that is not supported.
    """
    if not _is_on("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise CascadeError("FSDP is supported in version 2 only; add --fsdp_version 2.")
    if _is_on("FSDP_OFFLOAD_PARAMS"):
        raise CascadeError(
            "FSDP with offloading to the CPU is not supported; set --fsdp_offload_params false."
        )
    return True


def shard(
    learner: Learner, settings: TrainingSettings, *, device: torch.device, processes: int
) -> None:
    """Cut the weights of a stage into parts of which this process keeps its own, on its device.

    In bf16 the blocks are sent in bf16, so that no whole copy of them stays for the way back;
    gradients are summed in float32.

    Args:
        learner: the same in all processes; changed in place.
        settings: of the run.
        device: of this process.
        processes: among which it is cut.

    Raises:
        CascadeError: for settings that cannot do with parts of weights.
    """
    if settings.optimiser == "muon":
        raise CascadeError(
            "train.optimiser=muon needs whole weights, which FSDP cuts; use adamw, or DDP."
        )
    if settings.compile:
        raise CascadeError("train.compile is not supported with FSDP; switch one of them off.")
    half = torch.bfloat16 if uses_bf16(device, settings.precision) else None
    policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(device.type, (processes,))
    reshard = _is_on("FSDP_RESHARD_AFTER_FORWARD", "true")
    for block in [module for module in learner.modules() if isinstance(module, BLOCKS)]:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(learner, mesh=mesh, mp_policy=policy)
    if device.type == "cpu":  # gloo cannot average
        for module in learner.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor; if it is in parts, all processes must come here."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The whole of many tensors, one after another; all processes must come here.

    Args:
        tensors: in parts or not.
        keep: whether this process wants them.

    Returns:
        All of them, those that were in parts on the CPU; nothing if they are not wanted.
    """
    kept = {}
    for name, tensor in tensors.items():
        whole = full(tensor.detach())
        if keep:
            kept[name] = whole.cpu() if isinstance(tensor, DTensor) else whole
    return kept


def cut_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This process's part of a whole tensor, if it has only a part of the other one.

    Args:
        tensor: the same in all processes.
        other: of the same shape.
    """
    if not isinstance(other, DTensor):
        return tensor
    placed = distribute_tensor(
        tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None
    )
    return placed.clone()  # a view would keep the whole


def _is_on(key: str, default: str = "false") -> bool:
    return os.environ.get(key, default).lower() in ("true", "1", "yes")
