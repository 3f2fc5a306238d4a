"""The example of an objective: one that trains under accelerate with two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import final

import pytest
import torch

from cascade.diffusion.noise import SeededNoise
from cascade.stage_kinds import load_stage
from cascade.training.objectives.objective import Objective
from cascade.training.objectives.table import OBJECTIVES

# ---- the objective ----


@final
class Brightness(Objective):
    """At one noise level, match only the mean brightness of the image."""

    def check(self, stage):
        """Any stage will do."""

    def loss(self, stage, batch):
        x0 = batch.images
        t = torch.full((len(batch),), 50, device=x0.device)
        eps = SeededNoise(batch.seeds, "brightness", device=x0.device).normal(*x0.shape[1:])
        x_t = stage.process.schedule.add_noise(x0, eps, t)
        from cascade.conditioning.assembling import training_signals

        signals = training_signals(stage.conditions, batch, stage.space)
        x0_hat = stage.process.x0(stage.predict(x_t, t, signals).float(), x_t, t)
        return (x0_hat.mean(dim=(1, 2, 3)) - x0.mean(dim=(1, 2, 3))) ** 2


OBJECTIVES["brightness"] = Brightness

# ---- how it trains ----


def arguments(images: int, out: Path, pictures: Path) -> list[str]:
    values = (
        f"data.path={pictures} train.objective=brightness train.images={images} "
        "train.batch_size=8 train.warmup_images=8 train.schedule=constant "
        "train.checkpoint_every_images=16 train.sample_every_images=0 train.trackers=[]"
    )
    return ["train", "tiny-16", *values.split(), "--out", str(out)]


def train_on_two_processes(images: int, out: Path, pictures: Path) -> None:
    """Launch this file, which knows the objective, as the command `cascade`."""
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", __file__]
    done = subprocess.run(
        [sys.executable, *launch, *arguments(images, out, pictures)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def weights(run: Path) -> torch.Tensor:
    return torch.cat([each.flatten() for each in load_stage(run / "stage").parameters()])


def test_it_trains_and_resumes_exactly(command, pictures, tmp_path):
    for images, folder in ((32, "whole"), (16, "parts"), (32, "parts")):
        outcome = command(*arguments(images, tmp_path / folder, pictures))
        assert outcome.code == 0, outcome.err
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.slow
def test_it_trains_on_two_processes_and_resumes_exactly(command, pictures, tmp_path):
    command(*arguments(32, tmp_path / "alone", pictures))
    for images, folder in ((32, "whole"), (16, "parts"), (32, "parts")):
        train_on_two_processes(images, tmp_path / folder, pictures)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert torch.allclose(weights(tmp_path / "alone"), weights(tmp_path / "whole"), atol=1e-4)


if __name__ == "__main__":
    from cascade.cli.main import run

    run()
