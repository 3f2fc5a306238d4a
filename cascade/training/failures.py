"""What torch raises in training for a fault that is not the code's, told in one line."""

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
    """Say what to do where memory, the compiler or another process fails inside the block.

    Args:
        settings: of the run.

    Raises:
        CascadeError: in the place of torch's errors; others go through.
        OtherProcessError: if another process of the run has ended.
    """
    try:
        yield
    except CascadeError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise CascadeError(_out_of_memory(settings)) from error
        if _has_lost_a_process(error):
            raise OtherProcessError("another process of this run has ended.") from error
        if settings.compile and _is_of_the_compiler(error):
            raise CascadeError(
                f"the network cannot be compiled ({_reason(error)}); train.compile=false trains "
                f"without. If a file of its cache is damaged, remove the folder {_cache()}."
            ) from error
        raise


def _out_of_memory(settings: TrainingSettings) -> str:
    more = settings.accumulation_steps * 2
    means = [f"a smaller batch at a time, by train.accumulation_steps={more}"]
    if not settings.gradient_checkpointing:
        means.append("train.gradient_checkpointing=true")
    means.append("a smaller train.sample_count, data.crop_px or network")
    return f"out of memory in training; take {', or '.join(means)}."


def _has_lost_a_process(error: Exception) -> bool:
    """torch's own kind; of gloo only the words tell."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_PROCESS)


def _is_of_the_compiler(error: BaseException) -> bool:
    """Also what it meets on the way back, where it lets the errors of Python's imports through."""
    module = type(error).__module__
    return module.startswith(("torch._dynamo", "torch._inductor")) or isinstance(error, ImportError)


def _reason(error: BaseException) -> str:
    """The line that names the kind of the first error, such as `ImportError: file too short`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if not line.startswith("backend=")]
    return named[0].rstrip(".") if named else type(error).__name__


def _cache() -> Path:
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return Path(named or Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}")
