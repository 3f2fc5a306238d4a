"""Runs of `cascade train` on two processes over gloo."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

IMAGES = 128


@pytest.fixture
def arguments(pictures) -> list[str]:
    """All but the folder of the run."""
    return [
        "train",
        "tiny-16",
        f"data.path={pictures}",
        f"train.images={IMAGES}",
        "train.batch_size=16",
        "train.precision=fp32",
        "train.sample_every_images=0",
        "--out",
    ]


def test_two_processes_train_as_one(arguments, command, tmp_path):
    assert command(*arguments, tmp_path / "one").code == 0
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    done = subprocess.run(
        [*launch, "-m", "cascade.cli", *arguments, str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds the trained stage") == 1  # one process speaks
    one, two = (
        load_file(tmp_path / run / "checkpoints" / f"{IMAGES:012d}" / "stage.safetensors")
        for run in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():  # sums in another order differ in the last digits
        assert torch.allclose(tensor, two[name], atol=1e-5), name
