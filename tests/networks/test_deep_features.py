"""Deep features: what the coarse levels of a U-Net pass to the finest one."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from cascade.networks.deep_features import can_reuse, reusing

UP = {"DownBlock2D": "UpBlock2D", "AttnDownBlock2D": "AttnUpBlock2D"}
CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")


def make_unet(*down: str) -> UNet2DConditionModel:
    torch.manual_seed(0)
    has_tokens = CROSS[0] in down
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16, 24)[: len(down)],
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=8,
        down_block_types=down,
        mid_block_type="UNetMidBlock2DCrossAttn" if has_tokens else "UNetMidBlock2D",
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
    assert can_reuse(unet)
    tokens = torch.randn(2, 5, 8) if CROSS[0] in down else None
    sample, t = torch.randn(2, 3, 16, 24), torch.tensor([70, 20])
    parts = dict(unet._modules)
    expected = unet(sample, t, encoder_hidden_states=tokens).sample
    output, deep = reusing(unet, sample, t, None, encoder_hidden_states=tokens)
    assert output.equal(expected)
    assert deep.shape == (2, 16, 16, 24)
    coarse = []
    unet.down_blocks[1].register_forward_pre_hook(lambda *_: coarse.append(1))
    output, same = reusing(unet, sample, t, deep, encoder_hidden_states=tokens)
    assert output.equal(expected)
    assert same is deep
    assert coarse == []
    assert unet._modules == parts


def test_a_unet_of_one_level_has_no_deep_features():
    assert not can_reuse(make_unet("DownBlock2D"))
