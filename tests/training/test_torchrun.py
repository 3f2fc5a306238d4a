"""`torchrun --max-restarts` starts all processes again when one is killed, and the run is exact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cascade.training.checkpoint import checkpoints

IMAGES = 320
TIMEOUT_S = 300
TIMES = ("images_per_s", "seconds")


def torchrun(pictures: Path, out: Path, said: Path) -> subprocess.Popen[str]:
    values = (
        f"data.path={pictures} train.images={IMAGES} train.batch_size=16 train.warmup_images=64 "
        "train.precision=fp32 train.checkpoint_every_images=64 train.sample_every_images=0"
    )
    return subprocess.Popen(
        [
            *[sys.executable, "-m", "torch.distributed.run", "--standalone"],
            *["--nproc_per_node", "2", "--max-restarts", "2"],
            *["-m", "cascade.cli", "train", "tiny-16", *values.split(), "--out", str(out)],
        ],
        stdout=said.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            # Without it, processes that start again look for each other at addresses of dead ones
            # (https://github.com/pytorch/pytorch/issues/135712).
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        },
    )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End torchrun, which ends its own processes, also if the test fails."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def rank_of(parent: int, rank: int) -> int | None:
    """The id of a process that torchrun started; None if there is none."""
    for entry in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in entry.read_text().split():
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in variables:
                return int(child)
    return None


def kill_a_rank(parent: int, out: Path, rank: int) -> None:
    """Wait for the first checkpoint, and kill one process."""
    give_up = time.monotonic() + TIMEOUT_S
    while not checkpoints(out / "checkpoints") and time.monotonic() < give_up:
        time.sleep(0.01)
    process = rank_of(parent, rank)
    assert process is not None
    os.kill(process, signal.SIGKILL)


def results(run: Path) -> dict[str, object]:
    """All weights, averages and states of optimisers, and the log without times."""
    files = [path for path in run.rglob("*.safetensors") if "tracker" not in path.parts]
    contents: dict[str, object] = {str(path.relative_to(run)): path.read_bytes() for path in files}
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    contents["log"] = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return contents


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds ranks in /proc")
def test_a_run_whose_rank_is_killed_ends_as_one_that_was_not_disturbed(pictures, tmp_path):
    said = tmp_path / "run.said"
    with ended(torchrun(pictures, tmp_path / "whole", tmp_path / "whole.said")) as undisturbed:
        assert undisturbed.wait(TIMEOUT_S) == 0, (tmp_path / "whole.said").read_text()
    with ended(torchrun(pictures, tmp_path / "run", said)) as disturbed:
        kill_a_rank(disturbed.pid, tmp_path / "run", rank=1)
        assert disturbed.wait(TIMEOUT_S) == 0, said.read_text()
    assert "resuming " in said.read_text(), said.read_text()
    whole, run = results(tmp_path / "whole"), results(tmp_path / "run")
    assert run.keys() == whole.keys()
    assert len(whole) > 4
    assert [name for name in whole if run[name] != whole[name]] == []
