"""Our U-Net against diffusers' `UNet2DConditionModel`: equal weights, output, gradients, files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding

from cascade.errors import WeightsError
from cascade.networks.timesteps import timestep_waves
from cascade.networks.unet import UNet
from cascade.saving.components import load_component, save_component

SHAPE = {
    "sample_size": 8,
    "in_channels": 5,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (16, 32, 32),
    "norm_num_groups": 8,
}
TOKENS = {
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": 24,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
KINDS: dict[str, dict[str, Any]] = {
    "a condition vector": {
        "down_block_types": ("DownBlock2D",) * 3,
        "up_block_types": ("UpBlock2D",) * 3,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 12,
    },
    "self-attention": {
        "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "tokens": TOKENS,
    "tokens alone": TOKENS | {"only_cross_attention": True},
}


@pytest.fixture(params=KINDS)
def options(request) -> dict[str, Any]:
    return SHAPE | KINDS[request.param]


@pytest.fixture
def inputs(options) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    values: dict[str, Any] = {
        "sample": torch.randn(2, 5, 8, 8, generator=generator),
        "timestep": torch.tensor([3, 999]),
        "encoder_hidden_states": None,
    }
    if "class_embed_type" in options:
        values["class_labels"] = torch.randn(2, 12, generator=generator)
    if "cross_attention_dim" in options:
        values["encoder_hidden_states"] = torch.randn(2, 4, 24, generator=generator)
        values["encoder_attention_mask"] = torch.arange(4) < torch.tensor([[2], [4]])
    return values


@pytest.fixture
def theirs(options) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**options, mid_block_type="UNetMidBlock2D")


def of_theirs(options: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs for diffusers, which has a second mask for attention to nothing but tokens."""
    if options.get("only_cross_attention"):
        return inputs | {"attention_mask": inputs["encoder_attention_mask"]}
    return inputs


def test_the_same_seed_gives_the_same_weights_in_the_same_order(options, theirs):
    torch.manual_seed(0)
    ours = UNet(**options)
    for mine, other in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert mine[0] == other[0]
        assert mine[1].equal(other[1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_equal(options, inputs, theirs, layout):
    ours = UNet(**options)
    ours.load_state_dict(theirs.state_dict())
    ours.to(memory_format=layout)
    theirs.to(memory_format=layout)
    inputs["sample"] = inputs["sample"].to(memory_format=layout)
    mine, other = ours(**inputs).sample, theirs(**of_theirs(options, inputs)).sample
    assert mine.equal(other)
    mine.square().mean().backward()
    other.square().mean().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        assert mine.grad is None or mine.grad.equal(other.grad)


def test_gradients_are_the_same_if_activations_are_recomputed(options, inputs):
    ours = UNet(**options)
    ours(**inputs).sample.square().mean().backward()
    expected = [each.grad for each in ours.parameters()]
    ours.zero_grad()
    ours.enable_gradient_checkpointing()
    ours(**inputs).sample.square().mean().backward()
    for parameter, gradient in zip(ours.parameters(), expected, strict=True):
        assert gradient is parameter.grad is None or gradient.equal(parameter.grad)


def test_deep_features_of_another_step_replace_the_coarse_levels(options, inputs):
    ours = UNet(**options)
    with torch.no_grad():
        output, deep = ours.reusing(**inputs, deep=None)
        assert output.equal(ours(**inputs).sample)
        assert ours.reusing(**inputs, deep=deep)[0].equal(output)
        for parameter in (*ours.mid_block.parameters(), *ours.up_blocks[0].parameters()):
            parameter.zero_()
        assert ours.reusing(**inputs, deep=deep)[0].equal(output)
        assert not ours(**inputs).sample.equal(output)


def test_each_reads_the_files_of_the_other(options, inputs, theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_component(UNet, tmp_path / "theirs")
    save_component(ours, tmp_path / "ours")
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "ours" / file).read_text("latin-1").strip() == (
            tmp_path / "theirs" / file
        ).read_text("latin-1").strip()
    again = UNet2DConditionModel.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        assert ours(**inputs).sample.equal(again(**of_theirs(options, inputs)).sample)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("act_fn", "gelu", "act_fn must be 'silu' here, got 'gelu'"),
        ("dropout", 0.1, "dropout must be 0.0 here, got 0.1"),
        ("layers", 2, "unknown option 'layers'"),
        ("class_embed_type", "timestep", "class_embed_type must be 'projection'"),
        ("down_block_types", ["KDownBlock2D"] * 3, "block 'KDownBlock2D' must be one of DownBlock"),
    ],
)
def test_a_unet_of_diffusers_with_other_parts_is_refused(option, value, words, tmp_path):
    save_component(UNet(**SHAPE, **KINDS["self-attention"]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {option: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=rf"does not describe a UNet: {words}"):
        load_component(UNet, tmp_path)


@pytest.mark.parametrize(("cosine_first", "shift", "longest"), [(True, 0, 10000), (False, 1, 100)])
def test_waves_equal_those_of_diffusers(cosine_first, shift, longest):
    t = torch.tensor([0.0, 3.5, 999.0])
    ours = timestep_waves(t, 32, cosine_first=cosine_first, shift=shift, longest=longest)
    assert ours.equal(
        get_timestep_embedding(t, 32, cosine_first, shift, max_period=longest)  # positional: flip
    )
