"""What is swept: axes as they are typed, and those that are tried without being named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest

from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.sampling.samplers.ddim import DDIM
from cascade.sampling.samplers.sampler import PairSampler
from cascade.sampling.samplers.table import SAMPLERS
from cascade.sweeping.axes import read_axes
from cascade.sweeping.candidates import combine, one_at_a_time
from cascade.sweeping.default_axes import default_axes
from cascade.training.students import student_of

# ---- as they are typed --------------------------------------------------------------------------


def test_an_axis_without_a_stage_is_of_all_stages_that_have_a_use_for_it(cascade):
    steps, level = read_axes(["augmentation_level=0,0.5", "steps=2,4"], cascade)[::-1]
    assert {steps.stages, level.stages} == {("base", "upsampler"), ("upsampler",)}
    values = {axis.setting: axis.values for axis in (steps, level)}
    assert values == {"steps": (2, 4), "augmentation_level": (0.0, 0.5)}


def test_values_have_the_types_that_the_settings_declare(cascade):
    texts = ["base.guidance=1,2,1e1", "base.steps=3", "base.threshold=none,dynamic"]
    values = {axis.setting: axis.values for axis in read_axes(texts, cascade)}
    assert values["guidance"] == (1.0, 2.0, 10.0)
    assert [type(each) for each in values["guidance"]] == [float] * 3
    assert values["steps"] == (3,)
    assert values["threshold"] == ("none", "dynamic")


def test_intervals_are_written_in_brackets(cascade):
    texts = ["base.guidance=2", "base.guidance_interval=[0.3,3],[0,5]"]
    axis = next(a for a in read_axes(texts, cascade) if a.setting == "guidance_interval")
    assert axis.values == ((0.3, 3.0), (0.0, 5.0))
    candidates = combine(read_axes(texts, cascade), cascade)
    assert [each.settings["base"].guidance_interval for each in candidates] == [
        None,
        (0.3, 3.0),
        (0.0, 5.0),
    ]
    assert candidates[0].text() == "base.guidance 1, base.guidance_interval –"
    assert candidates[1].text() == "base.guidance 2, base.guidance_interval [0.3, 3]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("steps", "must be a setting and its values, such as steps=10,20,50"),
        ("steps=", "must be a setting and its values"),
        (".steps=3", "names no stage before the dot"),
        ("stepps=2", "did you mean"),
        ("etta=2", "did you mean 'eta'"),
        ("options=2", "unknown sampling setting 'options'"),
        ("upsampla.steps=2", "no stage 'upsampla' in this pipeline"),
        ("steps=2.5", "steps: input should be a valid integer.*, got 2.5"),
        ("guidance=much", "guidance: input should be a valid number.*, got 'much'"),
        ("guidance=true", "guidance: input should be a number, got True"),
        ("guidance_interval=null", "guidance_interval needs a value, got None"),
        ("steps=[2", r"steps: '\[2' is not a list of values"),
        ("steps=0", "0"),
        ("sampler=dddim", "ddim"),
        ("base.temperature=0.5", "temperature: stage 'base' has no use for it"),
        ("base.keep_colours=true", "keep_colours: stage 'base' has no use for it"),
        ("base.augmentation_level=0,0.1", "augmentation_level: stage 'base' has no use for it"),
        ("augmentation_level=0,1.5", "augmentation_level must be from 0 to 1"),
        ("eta=0,-1", "eta must be a number of at least 0, got -1.0"),
        ("variance=large", "variance: no stage of this pipeline has a use for it"),
        ("base.variance=large", "variance: stage 'base' has no use for it"),
    ],
)
def test_a_wrong_axis_is_refused(cascade, text, reason):
    with pytest.raises(ContractError, match=reason):
        combine(read_axes([text], cascade), cascade)


def test_colours_are_kept_by_stages_that_enlarge_an_image(cascade):
    (axis,) = read_axes(["keep_colours=true,false"], cascade)
    assert (axis.stages, axis.values) == (("upsampler",), (True, False))


def test_guidance_is_for_stages_that_can_do_without_a_condition(upsampler, unlabelled):
    guided = CascadePipeline.from_stages({"up": unlabelled(upsampler)})
    assert read_axes(["guidance=1,2"], guided)[0].stages == ("up",)
    alone = CascadePipeline.from_stages({"up": unlabelled(upsampler, drop=0.0)})
    for text in ("guidance=1,2", "guidance_interval=[0,1]"):
        with pytest.raises(ContractError, match="no stage of this pipeline has a use for it"):
            read_axes([text], alone)


def test_percentiles_are_of_dynamic_thresholds(cascade):
    with pytest.raises(ContractError, match="percentile has no effect on stage 'base'"):
        read_axes(["base.percentile=0.9,0.99"], cascade)
    texts = ["threshold=static,dynamic", "base.percentile=0.9,0.99"]
    assert len(combine(read_axes(texts, cascade), cascade)) == 5  # with the current settings


def test_intervals_are_of_guidance(cascade, resample):
    with pytest.raises(ContractError, match="guidance_interval has no effect on stage 'base'"):
        read_axes(["base.guidance_interval=[0,1]", "upsampler.guidance=2"], cascade)
    resample(cascade, "base", guidance=2.0)
    assert read_axes(["base.guidance_interval=[0,1]"], cascade)[0].stages == ("base",)


def test_guidance_and_its_interval_are_swept_for_stages_that_take_text(drawing):
    axes = read_axes(["guidance=1,3", "guidance_interval=[0.3,3],[0,5]"], drawing)
    assert [axis.stages for axis in axes] == [("base", "upsampler")] * 2
    swept = {axis.name for axis in default_axes(drawing)}
    assert {"base.guidance", "upsampler.guidance"} <= swept


def test_a_setting_is_swept_once(cascade):
    with pytest.raises(ContractError, match="steps of stage 'base' is swept twice"):
        read_axes(["steps=2", "base.steps=3"], cascade)


# ---- options of samplers ------------------------------------------------------------------------


def test_an_option_is_of_the_stages_whose_sampler_has_it(cascade, resample):
    assert read_axes(["eta=0,0.5"], cascade)[0].stages == ("base", "upsampler")
    resample(cascade, "upsampler", sampler="ddpm")
    assert read_axes(["eta=0,0.5"], cascade)[0].stages == ("base",)
    swept = {axis.setting: axis for axis in read_axes(["sampler=ddim", "eta=0,1"], cascade)}
    assert swept["eta"].stages == ("base", "upsampler")


def test_a_sampler_with_an_option_of_its_own_is_swept_without_more_code(cascade, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class DeepOptions:
        eta: float = 0.0
        depth: int = 1

    @final
    class Deep(PairSampler):
        Options = DeepOptions
        move = DDIM.move

    monkeypatch.setitem(SAMPLERS, "deep", Deep)
    axes = read_axes(["base.sampler=deep", "base.depth=1,3"], cascade)
    candidates = combine(axes, cascade)
    assert [each.text() for each in candidates] == [
        "base.sampler ddim, base.depth –",
        "base.sampler deep, base.depth 1",
        "base.sampler deep, base.depth 3",
    ]
    assert candidates[-1].settings["base"].options == {"depth": 3}


# ---- without being named ------------------------------------------------------------------------


def test_the_default_axes_are_what_the_stages_have_a_use_for(cascade, colouriser, unlabelled):
    names = {axis.name for axis in default_axes(cascade)}
    assert names == {
        "base.steps",
        "base.sampler",
        "base.timestep_shift",
        "base.guidance",
        "upsampler.steps",
        "upsampler.sampler",
        "upsampler.timestep_shift",
        "upsampler.guidance",
        "upsampler.augmentation_level",
    }
    level = next(a for a in default_axes(cascade) if a.setting == "augmentation_level")
    assert level.values == (0.0, 0.25, 0.5, 1.0)
    alone = CascadePipeline.from_stages({"colours": unlabelled(colouriser)})
    values = {axis.setting: axis.values for axis in default_axes(alone)}
    assert set(values) == {"steps", "sampler", "timestep_shift", "augmentation_level"}
    assert values["sampler"] == ("ddim", "ddpm", "dpmsolver++")  # all of them work in tiles


def test_temperatures_are_tried_where_a_first_guess_is_refined(refiner):
    axes = default_axes(CascadePipeline.from_stages({"up": refiner}))
    values = {axis.setting: axis.values for axis in axes}
    assert values["temperature"] == (0.4, 0.6, 0.8, 1.0)
    assert set(values) == {"steps", "sampler", "timestep_shift", "temperature"}
    assert values["timestep_shift"] == (1.0, 2.0, 4.0, 8.0)


@pytest.mark.parametrize("changes", [{"sampler": "dpmsolver++"}, {"steps": 1}])
def test_shifts_are_only_tried_where_they_change_the_timesteps(refiner, changes):
    settings = refiner.sampling.changed(**changes)
    axes = default_axes(CascadePipeline.from_stages({"up": refiner.with_sampling(settings)}))
    assert {axis.setting for axis in axes} == {"steps", "sampler", "temperature"}


def test_the_own_shift_is_among_those_that_are_tried(refiner):
    settings = refiner.sampling.changed(steps=4, timestep_shift=16)
    axes = default_axes(CascadePipeline.from_stages({"up": refiner.with_sampling(settings)}))
    shifts = next(axis.values for axis in axes if axis.setting == "timestep_shift")
    assert shifts == (1.0, 2.0, 4.0, 8.0, 16.0)


def test_for_speed_few_steps_are_tried_with_every_temperature(refiner):
    settings = refiner.sampling.changed(steps=6, temperature=0.8)
    pipeline = CascadePipeline.from_stages({"up": refiner.with_sampling(settings)})
    axes = default_axes(pipeline, "speed")
    together = one_at_a_time(axes, pipeline, together=("steps", "temperature"))
    pairs = [(each.settings["up"].steps, each.settings["up"].temperature) for each in together]
    assert len(pairs) == 5 * 4 + 2  # and two other samplers, with the current values
    assert set(pairs) == {(s, t) for s in (1, 2, 3, 4, 6) for t in (0.4, 0.6, 0.8, 1.0)}
    assert pairs.count((6, 0.8)) == 3
    long = CascadePipeline.from_stages({"up": refiner.with_sampling(settings.changed(steps=30))})
    steps = next(axis for axis in default_axes(long, "speed") if axis.setting == "steps")
    assert steps.values == (1, 2, 3, 4, 6, 8, 15, 30)


def test_default_values_are_those_that_the_stage_can_take(cascade, resample):
    longest = cascade.stages["base"].process.schedule.train_steps
    resample(cascade, "base", steps=longest, eta=0.5)
    values = {axis.name: axis.values for axis in default_axes(cascade)}
    assert values["base.steps"] == (longest // 2, longest)


def test_the_default_axes_leave_a_student_as_it_was_trained(cascade):
    student = student_of(cascade.stages["base"], steps=4)
    pipeline = CascadePipeline.from_stages({"base": student, "up": cascade.stages["upsampler"]})
    values = {axis.name: axis.values for axis in default_axes(pipeline)}
    assert values["base.steps"] == (4,)
    assert values["base.sampler"] == ("ddim",)
    assert len(values["up.steps"]) > 1
    assert len(one_at_a_time(default_axes(pipeline), pipeline)) > 1
