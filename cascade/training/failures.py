"""Turns torch's errors that are not the code's fault into one line that says what to do."""

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
def told_in_one_line(settings: TrainingSettings) -> Iterator[None]:
    """Replace errors of memory, compiler and other processes inside the block.

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
            f"the network cannot be compiled ({_reason(error)}); train with compile=false. If a "
            f"file in the compiler's cache is damaged, remove the folder {_compiler_cache()}."
        )
    return None


def _out_of_memory(settings: TrainingSettings) -> str:
    remedies = [f"set accumulation_steps={settings.accumulation_steps * 2} for smaller batches"]
    if not settings.gradient_checkpointing:
        remedies.append("set gradient_checkpointing=true")
    remedies.append("lower sample_count, crop_px or the size of the network")
    return f"out of memory in training; {', or '.join(remedies)}."


def _has_lost_a_process(error: Exception) -> bool:
    """torch has its own class for this; for gloo only the message tells."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_PROCESS)


def _is_from_compiler(error: BaseException) -> bool:
    """Includes errors of importing compiled code, which the compiler does not wrap."""
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
