"""Deep features: what the coarse levels of a U-Net pass to the finest one."""

from __future__ import annotations

import pytest
import torch

from cascade.networks.unet import UNet

UP = {"DownBlock2D": "UpBlock2D", "AttnDownBlock2D": "AttnUpBlock2D"}
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


def make_unet(*down: str) -> UNet:
    torch.manual_seed(0)
    return UNet(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16, 24)[: len(down)],
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
        down_block_types=down,
        up_block_types=tuple(dict([CROSS], **UP)[each] for each in reversed(down)),
    ).eval()


@pytest.mark.parametrize(
    "down",
    [
        ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    ],
)
@torch.no_grad()
def test_a_call_in_full_and_one_on_its_features_are_the_unet_s_own(down):
    unet = make_unet(*down)
    assert unet.has_deep_features
    tokens = torch.randn(2, 5, 8) if CROSS[0] in down else None
    sample, t = torch.randn(2, 3, 16, 24), torch.tensor([70, 20])
    expected = unet(sample, t, encoder_hidden_states=tokens).sample
    output, deep = unet.reusing(sample, t, None, encoder_hidden_states=tokens)
    assert output.equal(expected)
    assert deep.shape == (2, 16, 16, 24)
    coarse = []
    unet.down_blocks[1].register_forward_pre_hook(lambda *_: coarse.append(1))
    output, same = unet.reusing(sample, t, deep, encoder_hidden_states=tokens)
    assert output.equal(expected)
    assert same is deep
    assert coarse == []


def test_a_unet_of_one_level_has_no_deep_features():
    assert not make_unet("DownBlock2D").has_deep_features
