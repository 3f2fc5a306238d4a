"""The combinations of settings that a sweep compares."""

from __future__ import annotations

import pytest

from cascade.errors import ContractError
from cascade.sweeping.axes import read_axes
from cascade.sweeping.candidates import combine, one_at_a_time


def test_every_combination_is_there_once_and_the_current_one_too(cascade):
    axes = read_axes(["base.steps=2,3", "upsampler.guidance=1,2,2"], cascade)
    candidates = combine(axes, cascade)
    values = [(c.values["base.steps"], c.values["upsampler.guidance"]) for c in candidates]
    assert values == [(4, 1.0), (2, 1.0), (2, 2.0), (3, 1.0), (3, 2.0)]
    assert candidates[0].settings == {n: s.sampling for n, s in cascade.stages.items()}
    assert candidates[2].settings["base"].steps == 2
    assert candidates[2].settings["upsampler"].guidance == 2
    assert candidates[2].settings["upsampler"].steps == cascade.stages["upsampler"].sampling.steps
    assert candidates[2].text() == "base.steps 2, upsampler.guidance 2"


def test_the_current_settings_are_not_there_twice(cascade):
    assert len(combine(read_axes(["base.steps=2,4"], cascade), cascade)) == 2
    assert len(combine(read_axes(["base.eta=0,0.5"], cascade), cascade)) == 2  # 0 is the default


def test_combinations_of_one_first_stage_are_together(cascade):
    axes = read_axes(["upsampler.steps=2,3", "base.steps=5,6"], cascade)
    assert [c.values["base.steps"] for c in combine(axes, cascade)] == [4, 5, 5, 6, 6]


def test_options_are_combined_with_the_samplers_that_have_them(cascade, resample):
    resample(cascade, "base", eta=0.25)
    texts = ["base.sampler=ddim,ddpm", "base.eta=0,0.5", "base.variance=small,large"]
    candidates = combine(read_axes(texts, cascade), cascade)
    rows = [(each.settings["base"].sampler, each.settings["base"].options) for each in candidates]
    assert rows == [
        ("ddim", {"eta": 0.25}),
        ("ddim", {"eta": 0.0}),
        ("ddim", {"eta": 0.5}),
        ("ddpm", {}),
        ("ddpm", {"variance": "large"}),
    ]
    assert candidates[-1].text() == "base.sampler ddpm, base.eta –, base.variance large"


def test_one_change_at_a_time(cascade):
    axes = read_axes(["base.steps=2,3,4", "upsampler.guidance=1,2,3"], cascade)
    candidates = one_at_a_time(axes, cascade)
    values = [(c.values["base.steps"], c.values["upsampler.guidance"]) for c in candidates]
    assert values == [(4, 1.0), (4, 2.0), (4, 3.0), (2, 1.0), (3, 1.0)]
    for (steps, guidance), each in zip(values, candidates, strict=True):
        assert each.settings["base"] == cascade.stages["base"].sampling.changed(steps=steps)
        own = cascade.stages["upsampler"].sampling
        assert each.settings["upsampler"] == own.changed(guidance=guidance)


def test_stages_that_share_an_axis_but_differ_now_are_both_shown(cascade, resample):
    resample(cascade, "upsampler", steps=7)
    candidates = combine(read_axes(["steps=4,5"], cascade), cascade)
    assert [each.text() for each in candidates] == ["steps 4 / 7", "steps 4", "steps 5"]


def test_the_settings_of_the_pipeline_are_as_they_were(cascade):
    before = {name: stage.sampling for name, stage in cascade.stages.items()}
    combine(read_axes(["steps=2,3", "eta=0,1"], cascade), cascade)
    assert {name: stage.sampling for name, stage in cascade.stages.items()} == before


def test_too_many_combinations_are_refused(cascade):
    values = ",".join(str(n) for n in range(1, 60))
    with pytest.raises(ContractError, match="3481 combinations are more than 2000"):
        combine(read_axes([f"base.steps={values}", f"upsampler.steps={values}"], cascade), cascade)
