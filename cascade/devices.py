"""Chooses the device and the precision to compute with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

from cascade.errors import ContractError

Precision = Literal["auto", "fp32", "bf16"]


def best_device() -> torch.device:
    """The accelerator that torch finds, or the CPU."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def find_device(name: str | None) -> torch.device:
    """Find a device and check that it can compute.

    Args:
        name: a name such as `cuda:1`; None for the best device.

    Raises:
        ContractError: if the device does not exist or cannot compute.
    """
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ContractError(
            f"device {name!r} cannot be used here (it must be cpu, cuda, cuda:1, mps or another "
            "kind that torch knows); see cascade doctor."
        ) from error
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0].rstrip(".")
        raise ContractError(
            f"device {name!r} cannot be used here ({reason}); see cascade doctor."
        ) from error
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16; emulation would be slower than float32."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def uses_bf16(device: torch.device, precision: Precision) -> bool:
    """Whether to compute in bf16.

    Args:
        device: where the networks run.
        precision: `fp32`, `bf16`, or `auto` for bf16 where the hardware is fast at it.

    Raises:
        ContractError: if the precision is none of these.
    """
    if precision not in get_args(Precision):
        raise ContractError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context that runs networks in bf16 or fp32; weights and schedules stay in float32."""
    if uses_bf16(device, precision):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work, so that a clock measures all of it."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out.

    PyTorch has its own class for GPUs; on the CPU only the message says so.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "not enough memory" in text or "can't allocate memory" in text
