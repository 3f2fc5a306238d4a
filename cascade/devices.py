"""Chooses the device and the precision to compute with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch

from cascade.arguments import whole_number
from cascade.errors import ContractError, first_line

Precision = Literal["auto", "fp32", "bf16"]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # of weights


def best_device() -> torch.device:
    """The accelerator that torch finds, or the CPU."""
    if not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def find_device(name: str | torch.device | int | None) -> torch.device:
    """Find a device and check that it can compute.

    Args:
        name: a device or its name, such as `cuda:1`; None for the best device.

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
        reason = first_line(error).partition(". ")[0]
        raise ContractError(
            f"device {str(name)!r} cannot be used here ({reason}); see cascade doctor."
        ) from error
    return device


def check_engine_device(name: str | None) -> None:
    """Check that nobody asks for an accelerator together with an engine, which needs the CPU.

    Raises:
        ContractError: if somebody does, or the device does not exist.
    """
    if name is not None and find_device(name).type != "cpu":
        raise ContractError(
            f"engines compute on the CPU, got device {name!r}; leave one of them out."
        )


def check_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """Check that weights can have a type; None passes, for no change.

    Raises:
        ContractError: if it is no floating-point type for weights.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ContractError(
            f"dtype must be {', '.join(map(str, DTYPES[:-1]))} or {DTYPES[-1]}, got {dtype!r}."
        )
    return dtype


def offload_device(device: str | torch.device | None, gpu_id: int | None) -> torch.device:
    """The accelerator that computes while the weights of other stages wait on the CPU.

    Args:
        device: a device; None for the best one.
        gpu_id: its number; None for the first one, or the one that `device` names.

    Raises:
        ContractError: if there is no such accelerator.
    """
    computing = find_device(device)
    if gpu_id is not None:
        gpu_id = whole_number("gpu_id", gpu_id, low=0)
        if computing.index not in (None, gpu_id):
            raise ContractError(f"give gpu_id or the number in device, got {gpu_id} and {device}.")
        computing = torch.device(computing.type, gpu_id)
    if computing.type == "cpu":
        raise ContractError(
            "offloading needs an accelerator, and there is none; stages compute on the CPU anyway, "
            "so leave it out."
        )
    return find_device(str(computing))


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
    check_precision(precision)
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def precision_of_results(
    precision: Precision, weights: torch.dtype, *, are_outputs: bool
) -> Precision:
    """What `auto` means for a network whose outputs reach the results.

    Args:
        precision: what was asked for.
        weights: type of the weights. Those in half precision already need no autocast.
        are_outputs: whether results are the network's own outputs, and finer than the 8 bits of
            bfloat16.

    Returns:
        `fp32`, which is no autocast, in place of `auto` in both cases; else `precision`.
    """
    is_fp32 = weights != torch.float32 or are_outputs
    return "fp32" if precision == "auto" and is_fp32 else precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context that runs networks in bf16 or fp32; weights and schedules stay in float32."""
    if uses_bf16(device, precision):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def check_precision(precision: Any) -> None:
    """Check that a precision exists.

    Raises:
        ContractError: if it does not.
    """
    if not isinstance(precision, str) or precision not in get_args(Precision):
        raise ContractError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")


def check_weights(precision: Precision, dtype: torch.dtype, device: torch.device) -> None:
    """Check that networks with weights of a type can compute in a precision on a device.

    Raises:
        ContractError: if the weights have lost the precision, or the device is far too slow.
    """
    if dtype == torch.float16 and device.type == "cpu":
        raise ContractError(
            "weights in float16 are about a hundred times slower on the CPU; move them to an "
            "accelerator, or convert them with .to(torch.bfloat16)."
        )
    if precision != "auto" and dtype != torch.float32 and PRECISIONS[precision] != dtype:
        raise ContractError(
            f"precision {precision!r} needs weights in float32 or {PRECISIONS[precision]}, these "
            f"are {dtype}; load the pipeline without dtype, or leave out precision."
        )


def free_memory(device: torch.device) -> None:
    """Give unused memory back to a device."""
    if device.type in ("cuda", "mps", "xpu"):
        getattr(torch, device.type).empty_cache()


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work, so that a clock measures all of it."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out.

    PyTorch has its own class for most GPUs; on the CPU and MPS, and for libraries that allocate on
    their own, only the message says so.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)
