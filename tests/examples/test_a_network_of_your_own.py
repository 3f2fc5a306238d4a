"""The example of a network: any module that is called as `module(x_t, t, signals)`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cascade.conditioning.batch import Batch
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.networks.stage_network import MODULES
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.training.objectives.denoising import Denoising

# ---- the network ----


class Convolutions(nn.Module):
    """Two convolutions that see the noisy image, the conditioning images and the time."""

    size_multiple_px = 1

    def __init__(self, *, in_channels: int, width: int = 16) -> None:
        super().__init__()
        self.config = {"in_channels": in_channels, "width": width}
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time = nn.Linear(1, width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x_t, t, signals):
        images = [each.image for each in signals.channels.values()]
        features = self.first(torch.cat([x_t, *images], dim=1))
        time = self.time(t[:, None].float() / 1000)[..., None, None]
        return self.last(torch.relu(features + time))


# ---- how it is used ----

PROCESS = NoiseProcess(NoiseSchedule(train_steps=100))


def stage_of(space: Space, *conditions) -> DiffusionStage:
    torch.manual_seed(0)
    channels = 3 + sum(each.slots(space).channels for each in conditions)
    network = Convolutions(in_channels=channels)
    return DiffusionStage(
        network, PROCESS, Contract(space, conditions), sampling=SamplingSettings(steps=3)
    )


def test_it_trains_and_is_chained_saved_and_loaded(monkeypatch, tmp_path):
    monkeypatch.setitem(MODULES, "convolutions", Convolutions)
    base, upsampler = (
        stage_of(Space(size_px=8)),
        stage_of(Space(size_px=16), LowResolution(size_px=8)),
    )
    batch = Batch(images=torch.full((4, 3, 16, 16), 0.5), seeds=(0, 1, 2, 3))
    optimiser = torch.optim.Adam(upsampler.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = Denoising().loss(upsampler, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    pipeline = CascadePipeline.from_stages({"base": base, "upsampler": upsampler})
    pipeline.save_pretrained(tmp_path / "own")
    loaded = CascadePipeline.from_pretrained(tmp_path / "own")
    call = {"seed": 0, "output_type": "pt", "precision": "fp32"}
    assert torch.equal(pipeline(num_images=2, **call).images, loaded(num_images=2, **call).images)


def test_one_that_could_not_be_loaded_again_is_not_saved(tmp_path):
    stage = stage_of(Space(size_px=8))
    with pytest.raises(WeightsError, match="Convolutions could not be loaded again: add its"):
        stage.save_pretrained(tmp_path / "own")
    assert not (tmp_path / "own").exists()
