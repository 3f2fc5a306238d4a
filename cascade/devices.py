"""Which device and which precision to compute with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

from cascade.errors import ContractError

Precision = Literal["auto", "fp32", "bf16"]


def best_device() -> torch.device:
    """The accelerator that torch finds, or the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def find_device(name: str | None) -> torch.device:
    """The device of that name, such as `cuda:1`; for None the best one.

    Raises:
        ContractError: if it is not there or cannot compute.
    """
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ContractError(
            f"device {name!r} cannot be used here ({reason}); see cascade doctor."
        ) from error
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is done by the hardware; elsewhere it would be slower."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return False


def uses_bf16(device: torch.device, precision: Precision) -> bool:
    """What `precision` means on this device: `auto` is bf16 where it is fast.

    Raises:
        ContractError: for an unknown precision.
    """
    if precision not in get_args(Precision):
        raise ContractError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Run networks in bf16 where asked for; weights, schedules and steps stay in float32."""
    if uses_bf16(device, precision):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def wait_for(device: torch.device) -> None:
    """Come back when the device has done all that it was given, so that a clock tells the truth."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is short: PyTorch's own kind on GPUs; on the CPU only the words tell."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "not enough memory" in text or "can't allocate memory" in text
