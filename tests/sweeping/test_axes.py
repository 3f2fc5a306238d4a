"""What is swept: axes as they are typed, the usual ones, and their combinations."""

from __future__ import annotations

import pytest

from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.sweeping.axes import combine, one_at_a_time, read_axes, usual_axes


def test_an_axis_without_a_stage_is_of_all_stages_that_have_a_use_for_it(cascade):
    steps, level = read_axes(["augmentation_level=0,0.5", "steps=2,4"], cascade)[::-1]
    assert {steps.stages, level.stages} == {("base", "upsampler"), ("upsampler",)}
    found = {axis.setting: axis.values for axis in (steps, level)}
    assert found == {"steps": (2, 4), "augmentation_level": (0.0, 0.5)}


def test_every_combination_is_there_once_and_that_of_today_too(cascade):
    axes = read_axes(["base.steps=2,3", "upsampler.guidance=1,2,2"], cascade)
    found = combine(axes, cascade)
    values = [(c.values["base.steps"], c.values["upsampler.guidance"]) for c in found]
    assert values == [(4, 1.0), (2, 1.0), (2, 2.0), (3, 1.0), (3, 2.0)]
    assert found[0].settings == {n: s.sampling for n, s in cascade.stages.items()}
    assert found[2].settings["base"].steps == 2
    assert found[2].settings["upsampler"].guidance == 2
    assert found[2].settings["upsampler"].steps == cascade.stages["upsampler"].sampling.steps
    assert found[2].text() == "base.steps 2, upsampler.guidance 2"


def test_today_is_not_there_twice(cascade):
    assert len(combine(read_axes(["base.steps=2,4"], cascade), cascade)) == 2


def test_combinations_of_one_first_stage_are_together(cascade):
    axes = read_axes(["upsampler.steps=2,3", "base.steps=5,6"], cascade)
    assert [c.values["base.steps"] for c in combine(axes, cascade)] == [4, 5, 5, 6, 6]


def test_the_usual_axes_are_what_the_stages_have_a_use_for(cascade, colouriser):
    names = {axis.name for axis in usual_axes(cascade)}
    assert names == {
        "base.steps",
        "base.sampler",
        "base.guidance",
        "upsampler.steps",
        "upsampler.sampler",
        "upsampler.guidance",
        "upsampler.augmentation_level",
    }
    level = next(a for a in usual_axes(cascade) if a.setting == "augmentation_level")
    assert level.values == (0.0, 0.25, 0.5, 1.0)
    colouriser.labels = None
    alone = CascadePipeline.from_stages({"colours": colouriser})
    found = {a.setting: a.values for a in usual_axes(alone)}
    assert set(found) == {"steps", "sampler", "augmentation_level"}
    assert found["sampler"] == ("ddim", "ddpm")  # pictures of any size are coloured in tiles


def test_usual_values_are_those_that_the_stage_can_take(cascade):
    base = cascade.stages["base"]
    longest = base.process.schedule.train_steps
    base.sampling = base.sampling.changed(steps=longest, eta=0.5)
    found = {axis.name: axis.values for axis in usual_axes(cascade)}
    assert found["base.steps"] == (longest // 2, longest)
    assert found["base.sampler"] == ("ddim",)


def test_one_change_at_a_time(cascade):
    axes = read_axes(["base.steps=2,3,4", "upsampler.guidance=1,2,3"], cascade)
    found = one_at_a_time(axes, cascade)
    values = [(c.values["base.steps"], c.values["upsampler.guidance"]) for c in found]
    assert values == [(4, 1.0), (4, 2.0), (4, 3.0), (2, 1.0), (3, 1.0)]
    for (steps, guidance), each in zip(values, found, strict=True):
        assert each.settings["base"] == cascade.stages["base"].sampling.changed(steps=steps)
        own = cascade.stages["upsampler"].sampling
        assert each.settings["upsampler"] == own.changed(guidance=guidance)


def test_stages_that_differ_today_are_not_said_to_be_alike(cascade):
    upsampler = cascade.stages["upsampler"]
    upsampler.sampling = upsampler.sampling.changed(steps=7)
    found = combine(read_axes(["steps=4,5"], cascade), cascade)
    assert [each.text() for each in found] == ["steps 4 / 7", "steps 4", "steps 5"]


def test_what_goes_tile_by_tile_is_swept_over_what_tiles_can_do(upsampler):
    upsampler.labels = None
    alone = CascadePipeline.from_stages({"up": upsampler})
    with pytest.raises(ContractError, match="tiles need sampler ddim or ddpm"):
        combine(read_axes(["sampler=ddim,heun"], alone), alone)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps", "must be a setting and its values, such as steps=10,20,50"),
        ("steps=", "must be a setting and its values"),
        ("stepps=2", "did you mean"),
        ("upsampla.steps=2", "no stage 'upsampla' in this pipeline"),
        ("steps=2.5", "steps takes whole numbers, got '2.5'"),
        ("guidance=much", "guidance takes numbers, got 'much'"),
        ("steps=0", "0"),
        ("sampler=dddim", "ddim"),
        ("base.temperature=0.5", "temperature: stage 'base' has no use for it"),
        ("base.augmentation_level=0,0.1", "augmentation_level: stage 'base' has no use for it"),
    ],
)
def test_a_wrong_axis_is_refused(cascade, text, said):
    with pytest.raises(ContractError, match=said.replace("(", r"\(")):
        combine(read_axes([text], cascade), cascade)


def test_percentiles_are_of_dynamic_thresholds(cascade):
    with pytest.raises(ContractError, match="percentile has no effect on stage 'base'"):
        read_axes(["base.percentile=0.9,0.99"], cascade)
    texts = ["threshold=static,dynamic", "base.percentile=0.9,0.99"]
    assert len(combine(read_axes(texts, cascade), cascade)) == 5  # with that of today


def test_a_setting_is_swept_once(cascade):
    with pytest.raises(ContractError, match="steps of stage 'base' is swept twice"):
        read_axes(["steps=2", "base.steps=3"], cascade)


def test_too_many_combinations_are_refused(cascade):
    values = ",".join(str(n) for n in range(1, 60))
    with pytest.raises(ContractError, match="3481 combinations are more than 2000"):
        combine(read_axes([f"base.steps={values}", f"upsampler.steps={values}"], cascade), cascade)
