"""A module of one's own as a network: how it is called, and that it can be loaded again."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError, WeightsError
from cascade.networks import stage_network
from cascade.networks.backbone_network import NetworkShape
from cascade.networks.backbones import build_network
from cascade.networks.stage_network import PlainNetwork, as_network
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space


class Mixer(nn.Module):
    """A 1x1 convolution over the noisy image and the low-resolution one."""

    size_multiple_px = 4

    def __init__(self, *, gain: float, channels: int = 3) -> None:
        super().__init__()
        self.config = {"gain": gain, "channels": channels}
        self.mix = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        image = signals.channels["low_resolution"].image
        return self.config["gain"] * self.mix(torch.cat([x_t, image], dim=1))


def make_stage(network: nn.Module) -> DiffusionStage:
    contract = Contract(Space(size_px=8), (LowResolution(size_px=4),))
    sampling = SamplingSettings(steps=3)
    process = NoiseProcess(NoiseSchedule(train_steps=10))
    return DiffusionStage(network, process, contract, sampling=sampling)


@pytest.fixture
def modules(monkeypatch):
    """The table of modules that can be loaded again, empty."""
    table: dict[str, type[nn.Module]] = {}
    monkeypatch.setattr(stage_network, "MODULES", table)
    return table


def test_any_module_is_wrapped_and_a_stage_network_is_not():
    module = Mixer(gain=1.0)
    wrapped = as_network(module)
    assert isinstance(wrapped, PlainNetwork)
    assert wrapped.module is module
    assert as_network(wrapped) is wrapped
    shape = NetworkShape(image_channels=3, out_channels=3, size=(8, 8), slots={})
    unet = build_network("unet", shape, {"channels": (8,), "blocks": 1})
    assert as_network(unet) is unet


def test_a_module_sees_images_at_the_size_of_the_noisy_one():
    module = Mixer(gain=1.0)
    signals = Signals(channels={"low_resolution": ChannelSignal(torch.rand(2, 3, 4, 4), 2)})
    x_t = torch.rand(2, 3, 8, 8)
    expected = module(x_t, torch.zeros(2), signals.enlarged())
    assert PlainNetwork(module)(x_t, torch.zeros(2), signals).equal(expected)


def test_sizes_that_the_module_does_not_take_are_refused():
    x_t = torch.zeros(1, 3, 8, 6)
    with pytest.raises(ContractError, match="multiples of 4 px for this network, got 6x8"):
        PlainNetwork(Mixer(gain=1.0))(x_t, torch.zeros(1), Signals())
    module = nn.Identity()
    assert as_network(module).size_multiple_px == 1


def test_attention_is_found_inside_a_module():
    assert not as_network(Mixer(gain=1.0)).has_attention
    assert as_network(nn.Sequential(nn.MultiheadAttention(4, 1))).has_attention


def test_a_module_in_the_table_is_saved_and_loaded(modules, tmp_path):
    modules["mixer"] = Mixer
    stage = make_stage(Mixer(gain=0.5)).eval()
    stage.save_pretrained(tmp_path / "stage")
    config = json.loads((tmp_path / "stage" / "stage.json").read_text())
    assert config["network"] == {"kind": "plain", "module": "mixer"}
    loaded = DiffusionStage.from_pretrained(tmp_path / "stage")
    assert isinstance(loaded.network, PlainNetwork)
    assert loaded.network.module.config == {"gain": 0.5, "channels": 3}
    inputs = Inputs({"image": torch.rand(1, 3, 4, 4)})
    assert loaded.run([3], inputs).equal(stage.run([3], inputs))


class WithoutConfig(Mixer):
    """Says nothing of its constructor."""

    def __init__(self) -> None:
        super().__init__(gain=1.0)
        del self.config


class OfATensor(Mixer):
    """Has a value that JSON cannot hold."""

    def __init__(self, *, gain: float) -> None:
        super().__init__(gain=gain)
        self.config["gain"] = torch.tensor(gain)


class OfAnotherName(Mixer):
    """Its constructor has other arguments than its config."""

    def __init__(self, *, strength: float) -> None:
        super().__init__(gain=strength)


@pytest.mark.parametrize(
    "module", [WithoutConfig(), OfATensor(gain=1.0), OfAnotherName(strength=1.0)], ids=repr
)
def test_saving_refuses_a_module_that_its_config_does_not_make(modules, tmp_path, module):
    name = type(module).__name__
    modules[name] = type(module)
    with pytest.raises(WeightsError, match=f"{name} could not be loaded again: .*its attribute"):
        make_stage(module).save_pretrained(tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_saving_refuses_a_module_that_is_not_in_the_table(modules, tmp_path):
    modules["another"] = WithoutConfig
    with pytest.raises(WeightsError, match="Mixer could not be loaded again: add its class to"):
        make_stage(Mixer(gain=1.0)).save_pretrained(tmp_path / "stage")
    assert not (tmp_path / "stage").exists()


def test_loading_a_module_that_is_no_longer_in_the_table_is_refused(modules, tmp_path):
    modules["mixer"] = Mixer
    make_stage(Mixer(gain=0.5)).save_pretrained(tmp_path / "stage")
    modules["mixar"] = modules.pop("mixer")
    with pytest.raises(WeightsError, match=r"'mixer' is not in .*MODULES: did you mean 'mixar'"):
        DiffusionStage.from_pretrained(tmp_path / "stage")


class OneChannel(nn.Module):
    """Answers with the first channel only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        return self.weight * x_t[:, :1]


def test_an_output_of_another_shape_is_not_broadcast():
    process = NoiseProcess(NoiseSchedule(train_steps=10))
    stage = DiffusionStage(
        OneChannel(), process, Contract(Space(size_px=8)), sampling=SamplingSettings(steps=1)
    )
    with pytest.raises(ContractError, match=r"OneChannel must return \(2, 3, 8, 8\), but returned"):
        stage.run([0, 1])
