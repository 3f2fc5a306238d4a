"""What the tests of training share: trainers of the tiny recipes, and commands as processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from webdataset import TarWriter

from cascade.building.training import build_trainer
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.training.trainer import Trainer

SHORT = [
    "train.images=320",
    "train.batch_size=16",
    "train.warmup_images=32",
    "train.precision=fp32",
    "train.sample_every_images=0",
    "train.checkpoint_every_images=320",
]


FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # as `accelerate launch` says it


@pytest.fixture
def make_trainer(pictures):
    """A function that makes a trainer of a tiny recipe for 320 images, with some values changed."""

    def make(out: Path, *overrides: str, recipe: str = "tiny-16", **options) -> Trainer:
        values = [f"data.path={pictures}", *SHORT, *overrides]
        return build_trainer(
            load_stage_recipe(find_recipe(recipe, "stages"), values), out, **options
        )

    return make


# ---- commands as processes ----------------------------------------------------------------------


class RunServer:
    """Starts `cascade` as processes that can be killed, without the time that imports take."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("run_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        )

    def start(
        self,
        arguments: Sequence[object],
        log: Path,
        processes: int = 1,
        *,
        file_size_limit: int | None = None,
        other_arguments: Sequence[object] = (),
        sharded: bool = False,
        script: Path | None = None,
    ) -> list[int]:
        """Start a command, as one process or as `torchrun` starts several; answers their ids.

        The limit is for the first process, and the other arguments are added to those of the rest.
        A script takes the place of the command.
        """
        shared = {} if processes == 1 else _meeting_point(processes)
        ids = []
        for rank in range(processes):
            env = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if shared else {}
            env |= FSDP if sharded else {}
            argv = [str(each) for each in (*arguments, *(other_arguments if rank else ()))]
            limit = file_size_limit if rank == 0 else None
            asked = {"argv": argv, "env": env, "log": str(log), "limit": limit}
            ids.append(self._ask({**asked, "script": script and str(script)}))
        return ids

    def wait(self, process: int) -> int:
        """The exit code of a process when it has ended; negative for a signal."""
        return self._ask(process)

    def run(
        self, arguments: Sequence[object], log: Path, processes: int = 1, **options: Any
    ) -> list[int]:
        """Start a command and wait for the exit codes."""
        return [self.wait(each) for each in self.start(arguments, log, processes, **options)]

    def close(self) -> None:
        self._server.communicate()

    def _ask(self, value: object) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(value) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def _meeting_point(processes: int) -> dict[str, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.fixture(scope="session")
def server():
    """A `RunServer`."""
    started = RunServer()
    yield started
    started.close()


@pytest.fixture(scope="session")
def shards(pictures, tmp_path_factory) -> str:
    """The pictures as two webdataset shards, with their classes in JSON."""
    folder = tmp_path_factory.mktemp("shards")
    files = sorted(pictures.rglob("*.png"), key=lambda file: file.relative_to(pictures).as_posix())
    for number in range(2):
        with TarWriter(str(folder / f"{number}.tar")) as tar:
            for file in files[number * 9 : number * 9 + 9]:
                key = file.relative_to(pictures).with_suffix("").as_posix()
                tar.write(
                    {"__key__": key, "png": file.read_bytes(), "json": {"class": file.parent.name}}
                )
    return str(folder / "{0..1}.tar")
