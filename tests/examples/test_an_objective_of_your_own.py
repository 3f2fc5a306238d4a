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


def train(images: int, out: Path, pictures: Path, processes: int) -> None:
    """Run this file as the command `cascade`, which knows the objective then."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu", "--cpu"][:2]
        launch += ["--cpu", "--num_processes", str(processes)]
    values = (
        f"data.path={pictures} train.objective=brightness train.images={images} "
        "train.batch_size=8 train.warmup_images=8 train.schedule=constant "
        "train.checkpoint_every_images=16 train.sample_every_images=0 train.trackers=[]"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, __file__, "train", "tiny-16", *values.split(), "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def weights(run: Path) -> torch.Tensor:
    return torch.cat([each.flatten() for each in load_stage(run / "stage").parameters()])


def test_it_trains_and_resumes_exactly(pictures, tmp_path):
    train(32, tmp_path / "whole", pictures, 1)
    train(16, tmp_path / "parts", pictures, 1)
    train(32, tmp_path / "parts", pictures, 1)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.slow
def test_it_trains_on_two_processes_and_resumes_exactly(pictures, tmp_path):
    train(32, tmp_path / "alone", pictures, 1)
    train(32, tmp_path / "whole", pictures, 2)
    train(16, tmp_path / "parts", pictures, 2)
    train(32, tmp_path / "parts", pictures, 2)
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert torch.allclose(weights(tmp_path / "alone"), weights(tmp_path / "whole"), atol=1e-4)


if __name__ == "__main__":
    from cascade.cli.main import run

    run()
