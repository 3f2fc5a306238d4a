"""Sampling settings: partial changes, options of samplers, and overrides for many stages."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError
from typing import final

import numpy as np
import pytest
from diffusers import UniPCMultistepScheduler

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.guidance import Guidance
from cascade.sampling.overrides import Overrides
from cascade.sampling.samplers.ddim import DDIM, DDIMOptions
from cascade.sampling.samplers.sampler import PairSampler
from cascade.sampling.samplers.table import make_sampler, option_names, sampler_names
from cascade.sampling.settings import SETTINGS, SamplingSettings
from cascade.sampling.thresholding import Thresholding

# ---- changes ------------------------------------------------------------------------------------


def test_settings_change_by_name_and_none_leaves_them():
    settings = SamplingSettings(steps=7)
    changed = settings.changed(guidance=2.0, steps=None)
    assert changed == SamplingSettings(steps=7, guidance=2.0)
    assert settings == SamplingSettings(steps=7)
    assert settings.changed() == settings


def test_options_of_the_sampler_change_by_name_too():
    settings = SamplingSettings().changed(eta=0.5)
    assert settings == SamplingSettings(options={"eta": 0.5})
    assert settings.changed(steps=3).options == {"eta": 0.5}
    assert settings.changed(eta=0.1).options == {"eta": 0.1}
    assert settings.changed(options={"eta": 0.2}) == settings.changed(eta=0.2)


def test_options_are_left_behind_when_the_sampler_changes():
    settings = SamplingSettings().changed(eta=0.5)
    ddpm = settings.changed(sampler="ddpm")
    assert ddpm.options == {}
    assert ddpm.changed(variance="large").options == {"variance": "large"}
    both = settings.changed(sampler="ddpm", variance="large")
    assert both.options == {"variance": "large"}
    assert both.changed(sampler="ddim", eta=0.1).options == {"eta": 0.1}
    assert settings.changed(sampler="ddim").options == {"eta": 0.5}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step": 3}, "unknown sampling setting 'step': did you mean 'steps'"),
        ({"et": 3}, "unknown sampling setting 'et': did you mean 'eta'"),
        ({"variance": "large"}, "'variance' is an option of ddpm, not of ddim"),
        ({"xyz": 3}, r"unknown sampling setting 'xyz': known: sampler, .*, eta"),
        ({"sampler": "ddpm", "eta": 0.5}, "'eta' is an option of ddim, not of ddpm"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'"),
        ({"options": {"et": 3}}, "unknown sampling setting 'et'"),
        ({"options": 3}, "options must be a mapping by name, got 3"),
    ],
)
def test_names_that_do_not_exist_are_refused_with_the_nearest(values, words):
    with pytest.raises(ContractError, match=words) as error:
        SamplingSettings().changed(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 1.5}, r"steps must be a whole number of at least 1, got 1\.5"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": "many"}, "steps must be a whole number of at least 1, got 'many'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"augmentation_level": 1.5}, r"augmentation_level must be from 0 to 1, got 1\.5"),
        ({"augmentation_level": math.nan}, "augmentation_level must be from 0 to 1, got nan"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm': did you mean 'ddim'"),
        ({"options": {"variance": "large"}}, "'variance' is an option of ddpm, not of ddim"),
        ({"options": {"eta": "much"}}, "eta must be a number, got 'much'"),
        ({"options": {"eta": -1}}, "eta must be a number of at least 0, got -1"),
        ({"sampler": 3}, "sampler must be a name such as 'ddim', a Sampler or .*, got 3"),
        ({"guidance": math.nan}, "guidance must be a finite number, got nan"),
        ({"guidance": math.inf}, "guidance must be a finite number, got inf"),
        ({"guidance": "much"}, "guidance must be a number, got 'much'"),
        ({"guidance": True}, "guidance must be a number, got True"),
        ({"temperature": 1.5}, r"temperature must be from 0 to 1, got 1\.5"),
        ({"temperature": -0.1}, r"temperature must be from 0 to 1, got -0\.1"),
        ({"temperature": math.nan}, "temperature must be from 0 to 1, got nan"),
        ({"augmentation_level": None}, "augmentation_level must be a number, got None"),
        ({"threshold": "some"}, "threshold must be one of"),
        ({"percentile": 0.0}, r"percentile must be in \(0, 1\], got 0\.0"),
        ({"guidance_interval": (2, 1)}, r"0 <= low < high, got \(2, 1\)"),
        ({"guidance_interval": (-1, 1)}, r"0 <= low < high, got \(-1, 1\)"),
        ({"guidance_interval": (math.nan, 1)}, "0 <= low < high"),
        ({"guidance_interval": (1, math.nan)}, "0 <= low < high"),
        ({"guidance_interval": 3}, "must be two numbers, got 3"),
        ({"guidance_interval": (1, 2, 3)}, r"must be two numbers, got \(1, 2, 3\)"),
        ({"guidance_interval": "ab"}, "must be two numbers, got 'ab'"),
        ({"options": [1]}, r"options must be a mapping by name, got \[1\]"),
    ],
)
def test_values_out_of_range_are_refused_when_they_are_set(values, words):
    with pytest.raises(ContractError, match=words) as error:
        SamplingSettings(**values)
    assert "\n" not in str(error.value)


def test_settings_cannot_be_written():
    with pytest.raises(FrozenInstanceError):
        SamplingSettings().steps = 3


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(sampler="ddpm", steps=3, options={"variance": "large"}),
        SamplingSettings(guidance=2.0, guidance_interval=(0.5, 2.0), options={"eta": 0.5}),
        SamplingSettings(sampler="unipc", options={"config": {"solver_order": 3}}),
    ],
)
def test_plain_values_hold_the_options_beside_the_settings_and_read_back(settings):
    values = json.loads(json.dumps(settings.to_dict()))
    assert "options" not in values
    assert set(settings.options) <= set(values)
    assert SamplingSettings().changed(**values) == settings


def test_an_interval_can_be_taken_away_again():
    settings = SamplingSettings(guidance_interval=(0.5, 2.0))
    assert settings.changed(guidance_interval=None) == settings
    assert settings.changed(guidance_interval="none") == SamplingSettings()
    assert SamplingSettings(guidance_interval="none").guidance_interval is None


def test_values_of_numpy_become_plain_ones():
    settings = SamplingSettings(
        steps=np.int64(7),
        guidance=np.float32(2),
        percentile=np.float64(0.5),
        guidance_interval=(np.float32(0.5), np.int32(2)),
        keep_colours=np.True_,
        options={"eta": np.float32(0.5)},
    )
    plain = SamplingSettings(
        steps=7,
        guidance=2.0,
        percentile=0.5,
        guidance_interval=(0.5, 2),
        keep_colours=True,
        options={"eta": 0.5},
    )
    assert json.dumps(settings.to_dict()) == json.dumps(plain.to_dict())


# ---- samplers as objects and classes ------------------------------------------------------------


@final
class Still(PairSampler):
    """A sampler of a user, which is not in the table."""

    Options = DDIMOptions

    def move(self, x0, x_t, pair, noise, variance):
        return x_t


PROCESS = NoiseProcess(NoiseSchedule(train_steps=100))


def test_a_sampler_object_stands_for_its_name_steps_threshold_and_options():
    sampler = DDIM(PROCESS, 7, Thresholding("dynamic", 0.9), DDIMOptions(eta=0.5))
    options = {"eta": 0.5, "timestep_shift": 1.0}
    settings = SamplingSettings(
        sampler="ddim", steps=7, threshold="dynamic", percentile=0.9, options=options
    )
    assert SamplingSettings(sampler=sampler) == settings
    assert SamplingSettings(guidance=2).changed(sampler=sampler) == settings.changed(guidance=2)
    assert SamplingSettings(sampler=DDIM, steps=3) == SamplingSettings(steps=3)
    scheduler = make_sampler("unipc", PROCESS, 7, config={"solver_order": 3})
    again = SamplingSettings(sampler=scheduler)
    assert (again.sampler, again.steps) == ("UniPCMultistepScheduler", 7)
    assert again.options["config"]["solver_order"] == 3


def test_a_class_outside_the_table_is_used_and_recorded_by_its_name():
    for given in (Still, Still(PROCESS, 50, options=DDIMOptions(eta=0.0))):
        settings = SamplingSettings(sampler=given).changed(eta=0.25, steps=3, timestep_shift=2)
        made = settings.make_sampler(PROCESS)
        assert made.timesteps == PROCESS.schedule.sampling_timesteps(3, 2)
        assert isinstance(made, Still)
        assert (made.steps, made.options.eta) == (3, 0.25)
        assert settings.to_dict()["sampler"] == "Still"
        with pytest.raises(ContractError, match="'variance' is an option of ddpm, not of Still"):
            settings.changed(variance="large")
        with pytest.raises(ContractError, match="diffusers' schedulers, and Still is none; leave"):
            settings.changed(config={"solver_order": 1})


def test_a_sampler_object_and_a_setting_that_contradict_each_other_are_refused():
    with pytest.raises(ContractError, match="steps is 9, but the sampler object has 7; give one"):
        SamplingSettings().changed(sampler=DDIM(PROCESS, 7), steps=9)
    with pytest.raises(ContractError, match="steps is 9, but the sampler object has 7; give one"):
        SamplingSettings(sampler=DDIM(PROCESS, 7), steps=9)


def test_a_scheduler_of_a_user_is_refused():
    class Mine(UniPCMultistepScheduler):
        pass

    with pytest.raises(ContractError, match="Mine is not a class of diffusers; make it a Sampler"):
        SamplingSettings(sampler=Mine())


# ---- what they make -----------------------------------------------------------------------------


def test_the_sampler_has_the_steps_options_and_threshold_of_the_settings():
    process = NoiseProcess(NoiseSchedule(train_steps=100))
    settings = SamplingSettings(steps=7, threshold="dynamic", percentile=0.9, options={"eta": 0.5})
    sampler = settings.make_sampler(process)
    assert isinstance(sampler, DDIM)
    assert (len(sampler.timesteps), sampler.options.eta) == (7, 0.5)
    assert (sampler.thresholding.kind, sampler.thresholding.percentile) == ("dynamic", 0.9)


def test_every_sampler_says_which_options_it_has():
    for name in sampler_names():
        assert not set(option_names(name)) & set(SETTINGS)
    assert option_names("ddim") == ["timestep_shift", "eta"]
    assert option_names("ddpm") == ["timestep_shift", "variance"]
    with pytest.raises(ContractError, match="unknown sampler 'dimm'"):
        option_names("dimm")


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "x", None])
def test_an_eta_out_of_range_is_refused(value):
    with pytest.raises(ContractError, match="eta must be a number"):
        make_sampler("ddim", NoiseProcess(NoiseSchedule(train_steps=10)), 2, eta=value)


def test_guidance_applies_in_its_interval_of_noise():
    interval = Guidance(3.0, (0.5, 2.0))
    alpha_bar = {sigma: 1 / (1 + sigma**2) for sigma in (0.4, 0.6, 1.9, 2.1)}
    applies = {sigma: interval.applies(each) for sigma, each in alpha_bar.items()}
    assert applies == {0.4: False, 0.6: True, 1.9: True, 2.1: False}
    assert not interval.applies(0.0)
    assert Guidance(3.0, (0.5, math.inf)).applies(0.0)
    assert Guidance(3.0).applies(0.0)
    assert not Guidance(1.0).applies(0.5)


# ---- overrides ----------------------------------------------------------------------------------


def test_changes_for_a_stage_go_before_those_for_all():
    overrides = Overrides({"all": {"steps": 3, "guidance": 2.0}, "up": {"steps": 5}})
    assert overrides.of("base") == {"steps": 3, "guidance": 2.0}
    assert overrides.of("up") == {"steps": 5, "guidance": 2.0}
    assert overrides.names() == {"steps", "guidance"}
    settings = SamplingSettings(threshold="none")
    assert overrides.apply("up", settings) == SamplingSettings(
        threshold="none", steps=5, guidance=2.0
    )


def test_none_is_no_change():
    overrides = Overrides({"all": {"steps": None}, "up": {"guidance": None, "steps": 3}})
    assert overrides.of("base") == {}
    assert overrides.of("up") == {"steps": 3}
    assert not Overrides({"all": {"steps": None}})
    assert not Overrides()
    assert overrides


def test_later_changes_win_also_over_earlier_ones_for_single_stages():
    first = Overrides({"all": {"steps": 3, "eta": 0.5}, "up": {"steps": 5, "guidance": 2.0}})
    later = first.with_later(Overrides({"all": {"steps": 7}, "base": {"eta": 0.1}}))
    assert later.of("up") == {"steps": 7, "eta": 0.5, "guidance": 2.0}
    assert later.of("base") == {"steps": 7, "eta": 0.1}
    assert first.of("up") == {"steps": 5, "eta": 0.5, "guidance": 2.0}
    single = first.with_later(Overrides({"up": {"steps": 9}}))
    assert (single.of("base")["steps"], single.of("up")["steps"]) == (3, 9)


def test_changes_within_some_stages_are_those_for_all_and_for_these():
    overrides = Overrides({"all": {"steps": 3}, "base": {"eta": 0.5}, "up": {"eta": 0.1}})
    within = overrides.within(["up"])
    assert within.of("up") == {"steps": 3, "eta": 0.1}
    assert within.of("base") == {"steps": 3}


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        ([], {}),
        (["steps=20"], {"all": {"steps": 20}}),
        (["upsampler.guidance=2.0"], {"upsampler": {"guidance": 2.0}}),
        (["eta=1e-1", "all.steps=3"], {"all": {"eta": 0.1, "steps": 3}}),
        (["steps=20", "steps=30"], {"all": {"steps": 30}}),
        (["base.sampler=dpmsolver++"], {"base": {"sampler": "dpmsolver++"}}),
        ([" steps = 20 "], {"all": {"steps": 20}}),
        (["guidance_interval=[0.5, 2]"], {"all": {"guidance_interval": [0.5, 2]}}),
        (["config={solver_order: 3}"], {"all": {"config": {"solver_order": 3}}}),
        (["steps=010", "eta=010.5"], {"all": {"steps": 10, "eta": 10.5}}),
        (["config={order: 010, flag: true}"], {"all": {"config": {"order": 10, "flag": True}}}),
        (["steps=1:30", "guidance=0x10"], {"all": {"steps": "1:30", "guidance": "0x10"}}),
        (["steps=1_000", "sampler=no"], {"all": {"steps": "1_000", "sampler": "no"}}),
        (["guidance_interval=none"], {"all": {"guidance_interval": "none"}}),
    ],
)
def test_texts_are_read_as_yaml_values(texts, values):
    assert Overrides.parse(texts).values == values


@pytest.mark.parametrize(
    "text", ["", "steps", "=3", "steps=", "steps=null", ".steps=3", "up.=3", "steps=[1", "steps={"]
)
def test_texts_that_are_no_change_are_refused(text):
    with pytest.raises(ContractError, match=r"must be KEY=VALUE or STAGE\.KEY=VALUE") as error:
        Overrides.parse(["steps=3", text])
    assert repr(text) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "values"),
    [
        (None, {}),
        (3, {"all": {"steps": 3}}),
        ([2, 5], {"base": {"steps": 2}, "up": {"steps": 5}}),
        ((2, None), {"base": {"steps": 2}, "up": {}}),
        ({"up": 6}, {"up": {"steps": 6}}),
    ],
)
def test_a_call_gives_a_value_for_all_in_order_or_by_name(value, values):
    names = ["base", "up"]
    assert Overrides.per_stage(names, names, steps=value).values == values


@pytest.mark.parametrize("value", [[9, 3], [3], {"up": 3, "base": 9}])
def test_values_in_order_are_for_the_stages_that_run_or_for_all(value):
    overrides = Overrides.per_stage(["base", "up"], ["up"], steps=value)
    assert overrides.values == {"up": {"steps": 3}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2, 3], "steps: got 3 values for the 2 stages base, up"),
        ([], "steps: got 0 values for the 2 stages"),
        ({"middle": 3}, "steps: no stage 'middle'"),
    ],
)
def test_values_for_stages_that_do_not_exist_are_refused(value, words):
    with pytest.raises(ContractError, match=words):
        Overrides.per_stage(["base", "up"], ["base", "up"], steps=value)


def test_an_unknown_stage_is_refused_with_the_nearest():
    overrides = Overrides({"all": {"steps": 3}, "upsampler": {"steps": 3}})
    overrides.check(["base", "upsampler"])
    with pytest.raises(ContractError, match=r"no stage 'upsampler' .* did you mean 'upsampler_2'"):
        overrides.check(["base", "upsampler_2"])


def test_an_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(
        ContractError, match="unknown sampling setting 'stps': did you mean 'steps'"
    ):
        Overrides({"all": {"stps": 3}}).apply("base", SamplingSettings())
