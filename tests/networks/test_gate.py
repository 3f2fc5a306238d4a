"""A gated network adds the noisy image, times a gate that it predicts, to its output."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.networks.backbone_network import NetworkShape
from cascade.networks.backbones import StageUNet, build_network
from cascade.space import Space

SLOTS = {"image": Slots(channels=2)}
SHAPE = NetworkShape(image_channels=3, out_channels=3, size=(16, 16), slots=SLOTS)
OPTIONS = {"patch_size": 2, "channels": (8, 16), "blocks": 1}


def gated_network(**changes) -> StageUNet:
    torch.manual_seed(0)
    return build_network("unet", replace(SHAPE, **changes), {**OPTIONS, "gated": True})


@pytest.fixture
def inputs():
    x_t = torch.randn(2, 3, 16, 8, generator=torch.Generator().manual_seed(1))
    signals = Signals(channels={"image": ChannelSignal(torch.ones(2, 2, 16, 8), 1)})
    return x_t, torch.tensor([3, 90]), signals


def test_a_new_one_predicts_zero(inputs):
    assert gated_network()(*inputs).equal(torch.zeros(2, 3, 16, 8))


@pytest.mark.parametrize("out_channels", [3, 6])
def test_the_last_channels_are_the_gate_of_the_noisy_image(inputs, out_channels):
    network = gated_network(out_channels=out_channels)
    gate = torch.arange(12.0) / 10  # of red, green and blue at each of the 4 pixels of a patch
    with torch.no_grad():
        network.backbone.conv_out.bias[-12:] = gate
    expected = torch.zeros(2, out_channels, 16, 8)
    for channel in range(3):
        tile = gate[4 * channel : 4 * channel + 4].view(2, 2).tile(8, 4)
        expected[:, channel] = inputs[0][:, channel] * tile
    torch.testing.assert_close(network(*inputs), expected)


def test_without_a_gate_the_output_is_the_backbones(inputs):
    network = build_network("unet", SHAPE, OPTIONS)
    with torch.no_grad():
        network.backbone.conv_out.bias.fill_(0.5)
    assert network(*inputs).equal(torch.full((2, 3, 16, 8), 0.5))


def test_a_step_on_deep_features_is_gated_too(inputs):
    network = gated_network()
    torch.nn.init.normal_(network.backbone.conv_out.weight)
    whole = network(*inputs)
    first, deep = network.reusing(*inputs, None)
    again, _ = network.reusing(*inputs, deep)
    assert first.equal(whole)
    assert again.equal(whole)


def test_a_saved_stage_is_gated_when_it_is_loaded(tmp_path):
    contract, process = Contract(Space(size_px=16)), NoiseProcess(NoiseSchedule(train_steps=100))
    stage = DiffusionStage.build(contract, process, network_options={**OPTIONS, "gated": True})
    torch.nn.init.normal_(stage.network.backbone.conv_out.weight)
    stage.save_pretrained(tmp_path)
    loaded = DiffusionStage.from_pretrained(tmp_path)
    x_t, t = torch.randn(1, 3, 16, 16), torch.tensor([5])
    assert loaded.network.gated
    assert loaded.network(x_t, t, Signals()).equal(stage.network(x_t, t, Signals()))


def test_a_backbone_without_channels_for_the_gate_is_refused():
    plain = build_network("unet", SHAPE, OPTIONS)
    wrong = StageUNet(plain.backbone, None, patch_size=2, size_multiple_px=4, gated=True)
    with pytest.raises(ContractError, match="5 channels in and 3 out, the network has 5 and 0"):
        wrong.check(3, 3, SLOTS)
