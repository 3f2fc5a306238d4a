"""Trains a network with batch norm and dropout, alone or as one of several processes.

`OUT IMAGES`; what this process holds at the end goes to `OUT.RANK.pt`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.networks.stage_network import MODULES
from cascade.space import Space
from cascade.training.settings import TrainingSettings
from cascade.training.trainer import Trainer


class Normed(nn.Module):
    """Two convolutions with batch norm and dropout between them, and a layer that is not used."""

    def __init__(self, *, dropout: float = 0.5, unused: bool = False) -> None:
        super().__init__()
        self.config = {"dropout": dropout, "unused": unused}
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.unused = nn.Linear(4, 4) if unused else None

    def forward(self, x_t, t, signals):
        return self.last(self.dropout(torch.relu(self.norm(self.first(x_t)))))


MODULES["normed"] = Normed


def images(count: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 8, 8, generator=generator) * 2 - 1 for _ in range(count)]


def make_trainer(
    out: Path, module: nn.Module | None = None, data: Sequence[Tensor] | None = None, **settings
) -> Trainer:
    torch.manual_seed(0)
    process = NoiseProcess(NoiseSchedule(train_steps=100))
    stage = DiffusionStage(module or Normed(), process, Contract(Space(size_px=8)))
    values = {
        "images": 64,
        "batch_size": 16,
        "sample_every_images": 0,
        "warmup_images": 0,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "trackers": (),
        **settings,
    }
    return Trainer(stage, data or images(), out, TrainingSettings(**values))


if __name__ == "__main__":
    trainer = make_trainer(Path(sys.argv[1]), images=int(sys.argv[2]))
    trainer.run()
    module = trainer.state.stage.get_submodule("network.module")
    masks = module.get_submodule("dropout").train()(torch.ones(64))  # as the next step would draw
    held = {"buffers": list(module.buffers()), "masks": masks}
    torch.save(held, f"{sys.argv[1]}.{os.environ.get('RANK', 0)}.pt")
