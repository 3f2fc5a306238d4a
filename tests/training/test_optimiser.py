from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch.optim import AdamW

from cascade.building.stages import build_stage
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.stage import Stage
from cascade.training.muon import Muon
from cascade.training.optimiser import clip_gradients, make_optimisers
from cascade.training.settings import TrainingSettings

SETTINGS = TrainingSettings(
    images=1000, batch_size=10, warmup_images=100, decay_fraction=0.3, weight_decay=0.01
)


@pytest.fixture
def transformer_stage() -> Stage:
    recipe = load_stage_recipe(find_recipe("tiny-16", "stages"))
    return build_stage(recipe, lambda fields: {"class": ["a", "b"]})


# ---- which parameters ---------------------------------------------------------------------------


def test_adamw_has_every_parameter_and_the_settings(transformer_stage):
    (adamw,) = make_optimisers(transformer_stage, SETTINGS)
    assert isinstance(adamw, AdamW)
    (group,) = adamw.param_groups
    assert list(map(id, group["params"])) == list(map(id, transformer_stage.parameters()))
    assert group["betas"] == SETTINGS.betas
    assert group["weight_decay"] == 0.01


def test_muon_has_the_matrices_of_the_blocks_and_adamw_all_else(transformer_stage):
    adamw, muon = make_optimisers(transformer_stage, replace(SETTINGS, optimiser="muon"))
    assert isinstance(adamw, AdamW)
    assert isinstance(muon, Muon)
    names = {id(parameter): name for name, parameter in transformer_stage.named_parameters()}
    of_muon = {names[id(p)] for p in muon.param_groups[0]["params"]}
    of_adamw = {names[id(p)] for p in adamw.param_groups[0]["params"]}
    assert of_muon.isdisjoint(of_adamw)
    assert of_muon | of_adamw == set(names.values())
    assert of_muon == {
        name
        for name, parameter in transformer_stage.named_parameters()
        if re.search(r"\.blocks\.\d+\.", name) and parameter.ndim == 2
    }
    assert len(of_muon) >= 8


def test_muon_has_the_matrices_and_convolutions_of_a_unet_but_its_first_and_last(upsampler):
    adamw, muon = make_optimisers(upsampler, replace(SETTINGS, optimiser="muon"))
    names = {id(parameter): name for name, parameter in upsampler.named_parameters()}
    of_muon = [names[id(p)] for group in muon.param_groups for p in group["params"]]
    of_adamw = [names[id(p)] for p in adamw.param_groups[0]["params"]]
    assert sorted(of_muon + of_adamw) == sorted(names.values())
    assert sorted(of_muon) == sorted(
        name
        for name, parameter in upsampler.named_parameters()
        if re.search(r"\.(down_blocks|mid_block|up_blocks)\.", name) and parameter.ndim > 1
    )
    assert {parameter.ndim for group in muon.param_groups for parameter in group["params"]} == {
        2,
        4,
    }
    assert all(group["full_lr"] == SETTINGS.muon_learning_rate for group in muon.param_groups)


# ---- clipping -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("largest", "after"), [(1.0, 1.0), (100.0, 5.0)])
def test_gradients_are_scaled_down_to_the_largest_norm_and_never_up(largest, after):
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, largest) == pytest.approx(5.0)
    norm = torch.cat([parameter.grad for parameter in parameters]).norm().item()
    assert norm == pytest.approx(after, rel=1e-5)
