from __future__ import annotations

import re

import pytest
import torch

from cascade import devices
from cascade.contract import Contract
from cascade.devices import autocast, best_device, find_device, uses_bf16
from cascade.diagnosis import diagnose
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.extras import Extra
from cascade.recipe.finding import list_recipes, recipe_name
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.stage import Run

CPU = torch.device("cpu")


def test_a_named_device_is_taken_and_none_means_the_best():
    assert find_device("cpu") == CPU
    assert find_device(None) == best_device()
    if not torch.accelerator.is_available():
        assert best_device() == CPU


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:99", ""])
def test_a_device_that_cannot_compute_is_one_clear_line(name):
    with pytest.raises(ContractError, match=f"device '{name}' cannot be used here") as error:
        find_device(name)
    assert "cascade doctor" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bf16_only_where_it_is_fast(monkeypatch, fast):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: fast)
    assert uses_bf16(CPU, "auto") == fast
    assert uses_bf16(CPU, "bf16")
    assert not uses_bf16(CPU, "fp32")
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    with autocast(CPU, "auto"):
        assert (a @ b).dtype == (torch.bfloat16 if fast else torch.float32)
    with autocast(CPU, "fp32"):
        assert (a @ b).dtype == torch.float32


def test_the_diagnosis_names_versions_device_precision_extras_and_weights(monkeypatch):
    extra = Extra("shows a page", ("not_there",))
    monkeypatch.setattr("cascade.diagnosis.EXTRAS", {"web": extra})
    findings = {finding.subject: finding for finding in diagnose()}
    assert torch.__version__.startswith(findings["torch"].value)
    assert findings["device"].value
    assert findings["bf16"].meaning in ("precision auto means bf16", "precision auto means fp32")
    assert findings["extra [web]"].value == "missing"
    assert re.search(r'shows a page: pip install ".+\[web\]"', findings["extra [web]"].meaning)
    bundled = [
        recipe_name(path)
        for path in list_recipes("pipelines")
        if (path.parent / "model_index.json").is_file()
    ]
    assert [f.value for f in diagnose() if f.subject == "weights"] == bundled


@pytest.mark.parametrize(
    ("prediction", "space", "is_rounded"),
    [
        ("x0", Space(size_px=16, channels=1, range=(0, 65535)), False),
        ("v", Space(size_px=16, channels=1, range=(0, 65535)), True),
        ("x0", Space(size_px=16), True),
    ],
)
def test_bands_are_not_rounded_to_bfloat16(monkeypatch, fill_zeros, prediction, space, is_rounded):
    """Where the results are the network's own outputs, `auto` computes in float32."""
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: True)
    process = NoiseProcess(NoiseSchedule(), prediction=prediction)
    stage = DiffusionStage.build(
        Contract(space),
        process,
        embedding_dim=16,
        network_options={"channels": (8,), "blocks": 1},
        sampling=SamplingSettings(steps=2, threshold="none"),
    )
    stage = fill_zeros(stage).eval()
    exact, default = (stage.run([0], run=Run(precision=each)) for each in ("fp32", "auto"))
    assert default.equal(exact) != is_rounded
