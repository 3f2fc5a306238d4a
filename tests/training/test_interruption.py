"""Runs of `cascade train` that are ended from outside, and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cascade.cli.progress import TrainingProgress
from cascade.training.checkpoint import checkpoints

IMAGES = 640
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def arguments(pictures) -> list[str]:
    """All but the folder of the run."""
    return [
        "train",
        "tiny-16",
        f"data.path={pictures}",
        f"train.images={IMAGES}",
        "train.batch_size=16",
        "train.warmup_images=64",
        "train.precision=fp32",
        "train.sample_every_images=0",
        "train.checkpoint_every_images=64",
        "--out",
    ]


@pytest.fixture(scope="module")
def whole(arguments, command, tmp_path_factory) -> dict[str, list]:
    """What a run without a gap leaves."""
    out = tmp_path_factory.mktemp("whole")
    assert command(*arguments, out).code == 0
    return tensors(out)


def tensors(run: Path) -> dict[str, list]:
    """All tensors of the last checkpoint and the finished stage."""
    files = [
        *(run / "checkpoints" / f"{IMAGES:012d}").glob("*.safetensors"),
        *(run / "stage").rglob("*.safetensors"),
    ]
    assert len(files) == 5
    return {
        str(file.relative_to(run)): [(k, v.tolist()) for k, v in sorted(load_file(file).items())]
        for file in files
    }


@pytest.fixture
def own_handlers():
    """Handlers of SIGTERM and SIGINT, which a run must put back."""

    def fail(number, frame) -> None:
        pytest.fail("the signal did not reach the trainer")

    mine = {number: signal.signal(number, fail) for number in (signal.SIGTERM, signal.SIGINT)}
    yield fail
    for number, handler in mine.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_says_so_and_ends_with_0(
    command, arguments, whole, tmp_path, monkeypatch, own_handlers, number
):
    def send_signal(progress, values) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainingProgress, "update", send_signal)
    stopped = command(*arguments, tmp_path)
    assert stopped.code == 0
    assert "stopped after 160 images; the same command goes on from there." in stopped.out
    assert int(checkpoints(tmp_path / "checkpoints")[-1].name) == 160
    assert (tmp_path / "stage" / "stage.json").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is own_handlers
    monkeypatch.undo()
    assert command(*arguments, tmp_path).code == 0
    assert tensors(tmp_path) == whole


def test_a_killed_process_loses_nothing_but_time(command, arguments, whole, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "from cascade.cli.main import run; run()", *arguments, tmp_path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    give_up = time.monotonic() + TIMEOUT_S
    while not checkpoints(tmp_path / "checkpoints"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert int(checkpoints(tmp_path / "checkpoints")[-1].name) < IMAGES
    assert not (tmp_path / "stage").exists()
    assert command(*arguments, tmp_path).code == 0
    assert tensors(tmp_path) == whole
