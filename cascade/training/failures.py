"""Replaces torch's errors that are not the code's fault by one line that says what to do."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cascade.devices import is_out_of_memory
from cascade.errors import CascadeError, OtherProcessError
from cascade.training.settings import TrainingSettings

LOST_PROCESS = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")


@contextmanager
def explained_errors(settings: TrainingSettings) -> Iterator[None]:
    """Explain errors of memory, compiler and other processes that the block raises.

    Args:
        settings: settings of the run, which the advice depends on.

    Raises:
        CascadeError: in place of torch's errors; other errors pass unchanged.
        OtherProcessError: if another process of the run has ended.
    """
    try:
        yield
    except CascadeError:
        raise
    except Exception as error:
        replacement = _replacement(error, settings)
        if replacement is None:
            raise
        raise replacement from error


def _replacement(error: Exception, settings: TrainingSettings) -> CascadeError | None:
    if is_out_of_memory(error):
        return CascadeError(_out_of_memory(settings))
    if _has_lost_a_process(error):
        return OtherProcessError("another process of this run has ended.")
    if settings.compile and _is_from_compiler(error):
        return CascadeError(
            f"the network cannot be compiled ({_reason(error)}); train without compiling it. If a "
            f"file in the compiler's cache is damaged, remove the folder {_compiler_cache()}."
        )
    return None


def _out_of_memory(settings: TrainingSettings) -> str:
    steps = settings.accumulation_steps
    remedies = [f"split each batch into {steps * 2} accumulation steps instead of {steps}"]
    if not settings.gradient_checkpointing:
        remedies.append("turn on gradient checkpointing")
    remedies.append("use fewer samples in a grid, smaller crops or a smaller network")
    return f"out of memory in training; {', or '.join(remedies)}."


def _has_lost_a_process(error: Exception) -> bool:
    """Whether another process has ended; gloo has no error class for it, only messages."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_PROCESS)


def _is_from_compiler(error: BaseException) -> bool:
    """Whether the compiler failed; it does not wrap errors of importing compiled code."""
    module = type(error).__module__
    return module.startswith(("torch._dynamo", "torch._inductor")) or isinstance(error, ImportError)


def _reason(error: BaseException) -> str:
    """The line that names the first error, such as `ImportError: file too short`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith("backend=")]
    return reasons[0].rstrip(".") if reasons else type(error).__name__


def _compiler_cache() -> Path:
    folder = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return Path(folder or Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")
