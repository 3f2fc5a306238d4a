"""Further processes of the same command, which share the work of the first one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

IS_WORKER = "CASCADE_IS_WORKER"  # environment variable of the further processes


def check_workers(count: int) -> None:
    """Check that no launcher started this process already.

    Raises:
        BadParameter: if one did.
    """
    if count > 1 and "RANK" in os.environ and IS_WORKER not in os.environ:
        raise typer.BadParameter(
            "--workers starts processes, and a launcher has started this one; leave it out."
        )


@contextmanager
def further_workers(count: int) -> Iterator[None]:
    """Run this command in further processes during the block, and wait for them at its end.

    Each process gets its share of the processor's cores, and its own accelerator if there are
    several. If the block fails, the processes are terminated.

    Args:
        count: number of processes with this one.
    """
    if count < 2 or IS_WORKER in os.environ:
        yield
        return
    import torch

    threads = max(1, torch.get_num_threads() // count)
    torch.set_num_threads(threads)
    processes = [_start(number, threads) for number in range(1, count)]
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.wait()


def _start(number: int, threads: int) -> subprocess.Popen[bytes]:
    own = {IS_WORKER: "1", "RANK": str(number), "LOCAL_RANK": str(number)}
    environment = os.environ | own | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "cascade.cli", *sys.argv[1:]]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
