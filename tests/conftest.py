"""What tests share: tiny stages with random weights, and a network that records its calls."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from cascade.conditioning.conditions import Conditions
from cascade.conditioning.labels import LabelVocabulary
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.stage import SamplingSettings, Stage

settings.register_profile("cascade", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("cascade")


class RecordingNetwork(nn.Module):
    """Answers zero, and keeps (x_t, t, conditions) of every call."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls: list[tuple[Tensor, Tensor, Conditions]] = []

    def forward(self, x_t: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        self.calls.append((x_t, t, conditions))
        batch, _, height, width = x_t.shape
        return self.weight * torch.ones(batch, self.out_channels, height, width)


def _fill_zeros(module: nn.Module) -> nn.Module:
    """Give parameters that start at zero random values, so that outputs depend on inputs."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def _tiny_stage(contract: Contract, **options) -> Stage:
    torch.manual_seed(0)
    return Stage.build(
        contract,
        NoiseProcess(NoiseSchedule(train_steps=100)),
        labels=LabelVocabulary({"animal": ["cat", "dog"], "style": ["noto", "twemoji"]}),
        embedding_dim=32,
        **options,
    ).eval()


@pytest.fixture(scope="session")
def _stages() -> dict[str, Stage]:
    base = _tiny_stage(
        Contract(size_px=16),
        network_options={"channels": (8, 16), "blocks": 1},
        sampling=SamplingSettings(steps=4),
    )
    upsampler = _tiny_stage(
        Contract(size_px=32, low_res_px=16, augmentation_range=(0.0, 1.0)),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        low_res_drop=0.1,
        sampling=SamplingSettings(steps=4, augmentation_level=0.3),
    )
    return {"base": _fill_zeros(base), "upsampler": _fill_zeros(upsampler)}


@pytest.fixture
def base_stage(_stages) -> Stage:
    """16 px, two label fields, 100 timesteps, random weights."""
    return copy.deepcopy(_stages["base"])


@pytest.fixture
def upsampler(_stages) -> Stage:
    """16 -> 32 px, two label fields, all augmentation levels, 100 timesteps, random weights."""
    return copy.deepcopy(_stages["upsampler"])


@pytest.fixture
def labels() -> Tensor:
    """Labels of five images, two fields each; -1 is not given."""
    return torch.tensor([[0, 1], [1, 0], [1, 1], [-1, 0], [0, -1]])


@pytest.fixture
def low_res() -> Tensor:
    """Five images of 16 px, off the 8-bit grid."""
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.9 - 0.95


@pytest.fixture
def fill_zeros():
    """A function that gives parameters which start at zero random values."""
    return _fill_zeros


@pytest.fixture
def record():
    """A function that gives a stage a `RecordingNetwork` and returns its list of calls."""

    def put_in(stage: Stage) -> list[tuple[Tensor, Tensor, Conditions]]:
        channels = stage.contract.channels * (2 if stage.process.learned_variance else 1)
        stage.network = RecordingNetwork(channels)
        return stage.network.calls

    return put_in
