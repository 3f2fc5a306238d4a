"""Low-rank adapters: they change nothing at first, can learn anything, and know their stage."""

from __future__ import annotations

import copy
import json
import sys

import pytest
import torch
from torch import nn

from cascade import CascadePipeline
from cascade.conditioning.signals import Signals
from cascade.errors import ContractError, WeightsError
from cascade.networks import adapters
from cascade.networks.adapters import AdapterSettings, add_adapter, merged
from cascade.restoration.expected_error import ErrorCurve, ExpectedError, model_digest
from cascade.restoration.upscaling import Upscaling

T = torch.tensor([5, 90])
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
LABELS = torch.tensor([[0, 1], [1, -1]])


def predict(stage):
    with torch.no_grad():
        return stage.eval().predict(X, T, Signals(vectors={"labels": LABELS}))


def adapted(stage, *, seed=0, **settings):
    """A copy of a stage with an adapter of random weights."""
    stage = copy.deepcopy(stage)
    stage.requires_grad_(False)
    add_adapter(stage.trunk, AdapterSettings(**settings))
    torch.manual_seed(seed)
    for name, weights in stage.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weights, std=0.1)
    return stage


@pytest.fixture
def transformer(prompted):
    return prompted.stages["base"]


def test_a_new_adapter_changes_no_bit_and_freezes_all_else(base_stage):
    before = predict(base_stage)
    base_stage.requires_grad_(False)
    add_adapter(base_stage.trunk, AdapterSettings(rank=2))
    assert predict(base_stage).equal(before)
    trained = [name for name, each in base_stage.named_parameters() if each.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)


def test_a_transformer_takes_adapters_too(transformer):
    stage = copy.deepcopy(transformer)
    add_adapter(stage.trunk, AdapterSettings(rank=2))
    names = [name for name, _ in stage.named_parameters() if "lora_A" in name]
    assert any("blocks" in name for name in names)


def test_full_rank_on_a_linear_layer_learns_any_change():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 4))
    target = nn.Linear(6, 4, bias=False)
    target.weight.data += layer[0].weight.data
    add_adapter(layer, AdapterSettings(rank=4))
    x = torch.randn(64, 6)
    trained = [each for each in layer.parameters() if each.requires_grad]
    optimiser = torch.optim.LBFGS(trained, max_iter=300, line_search_fn="strong_wolfe")
    bias = layer[0].base_layer.bias

    def closure():
        optimiser.zero_grad()
        loss = (layer(x) - bias - target(x)).square().mean()
        loss.backward()
        return loss

    for _ in range(5):
        optimiser.step(closure)
    change = merged(layer)[0].weight - target.weight
    assert change.abs().max() < 1e-3


@pytest.mark.parametrize("scale", [1.0, 0.4, 0.0])
def test_merged_and_unmerged_agree_at_any_scale(base_stage, tmp_path, scale):
    adapted(base_stage, rank=3, alpha=6).save_pretrained(tmp_path)
    one = base_stage.with_adapter(tmp_path, scale)
    other = base_stage.with_adapter(tmp_path / "adapter", scale, merge=False)
    torch.testing.assert_close(predict(one), predict(other), rtol=1e-5, atol=1e-5)
    changed = (predict(one) - predict(base_stage)).abs().max() > 1e-3
    assert bool(changed) == (scale > 0)
    assert one.state_dict().keys() == base_stage.state_dict().keys()


def test_a_saved_stage_holds_the_change_and_the_adapter(base_stage, tmp_path):
    stage = adapted(base_stage, rank=2)
    stage.save_pretrained(tmp_path / "stage")
    loaded = type(stage).from_pretrained(tmp_path / "stage")
    torch.testing.assert_close(predict(loaded), predict(stage), rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "stage" / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 2)


def test_peft_itself_reads_the_folder(base_stage, tmp_path):
    from peft import PeftModel

    stage = adapted(base_stage, rank=2)
    stage.save_pretrained(tmp_path)
    stage.save_pretrained(tmp_path)  # over the first one
    theirs = copy.deepcopy(base_stage)
    PeftModel.from_pretrained(theirs.trunk, tmp_path / "adapter")  # adds it in place
    torch.testing.assert_close(predict(theirs), predict(stage), rtol=1e-5, atol=1e-5)


def test_a_pipeline_finds_the_stage_of_an_adapter(base_stage, upsampler, tmp_path):
    adapted(upsampler, rank=2).save_pretrained(tmp_path / "up")
    pipeline = CascadePipeline.from_stages({"base": base_stage, "upsampler": upsampler})
    changed = pipeline.with_adapter(tmp_path / "up")
    assert changed.stages["base"] is base_stage
    assert changed.stages["upsampler"] is not upsampler
    alone = CascadePipeline.from_stages({"base": base_stage})
    with pytest.raises(WeightsError, match="on none of the stages base"):
        alone.with_adapter(tmp_path / "up")


def test_expected_errors_are_known_but_do_not_hold_for_an_adapter(upsampler, tmp_path):
    adapted(upsampler, rank=2).save_pretrained(tmp_path / "up")
    pipeline = CascadePipeline.from_stages({"upsampler": upsampler})
    curve = ErrorCurve(deviations=(0.0,), errors=(0.1,), correlation=0.5)
    saved = ExpectedError(seeds=2, pictures=9, model=model_digest([upsampler]), curves=(curve,))
    pipeline.stages.expected_error = saved
    chain = pipeline.with_adapter(tmp_path / "up").stages
    assert chain.expected_error == saved
    assert saved.holds_for([upsampler], 2, Upscaling())
    assert not saved.holds_for([chain["upsampler"]], 2, Upscaling())


def test_a_stage_in_half_precision_is_the_same_stage(base_stage, tmp_path):
    adapted(base_stage, rank=2).save_pretrained(tmp_path / "adapted")
    base_stage.save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    half = type(base_stage).from_pretrained(tmp_path / "half")
    assert half.with_adapter(tmp_path / "adapted") is not None


def test_what_does_not_fit_is_refused(base_stage, colouriser, tmp_path, monkeypatch):
    adapted(base_stage, rank=2).save_pretrained(tmp_path)
    other = copy.deepcopy(base_stage)
    for weights in other.parameters():
        nn.init.normal_(weights)
    for stage in (other, colouriser):
        with pytest.raises(WeightsError, match="was trained on another stage"):
            stage.with_adapter(tmp_path)
    with pytest.raises(WeightsError, match="no adapter in"):
        base_stage.with_adapter(tmp_path / "nowhere")
    with pytest.raises(ContractError, match="no layer's name ends in 'to_x'"):
        adapted(base_stage, targets=["to_x"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "peft", None)
        with pytest.raises(ContractError, match="adapters need peft; run pip install"):
            base_stage.with_adapter(tmp_path)
    (tmp_path / "adapter" / adapters.WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="missing or damaged"):
        base_stage.with_adapter(tmp_path)
