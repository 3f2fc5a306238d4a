"""Samplers by name, and their options, which are declared by their classes alone."""

from dataclasses import fields, is_dataclass

import pytest

from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.sampling.samplers.table import (
    SAMPLERS,
    make_sampler,
    option_names,
    sampler_names,
)


def test_every_name_makes_a_sampler(process):
    assert sampler_names()[:2] == ["ddim", "ddpm"]
    for name in [*sampler_names(), "DPMSolverSinglestepScheduler"]:
        assert make_sampler(name, process, 5).steps == 5


def test_options_are_the_fields_of_the_class():
    for name, kind in SAMPLERS.items():
        assert is_dataclass(kind.Options)
        assert option_names(name) == [field.name for field in fields(kind.Options)]
    assert option_names("ddim") == ["timestep_shift", "eta"]
    assert option_names("ddpm") == ["timestep_shift", "variance"]
    assert option_names("unipc") == option_names("UniPCMultistepScheduler") == ["config"]


def test_options_reach_the_sampler(process):
    assert make_sampler("ddim", process, 5).options == SAMPLERS["ddim"].Options()
    assert make_sampler("ddim", process, 5, eta=0.5).options == SAMPLERS["ddim"].Options(eta=0.5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dddim", {}, "unknown sampler 'dddim': did you mean 'ddim'"),
        ("NoScheduler", {}, "unknown sampler"),
        ("ddpm", {"eta": 0.5}, "'eta' is an option of ddim, not of ddpm"),
        ("ddim", {"variance": "large"}, "'variance' is an option of ddpm, not of ddim"),
        ("heun", {"eta": 0.5}, "'eta' is an option of ddim, not of heun"),
        ("heun", {"churn": 0.5}, "'heun' has no option 'churn'"),
        ("heun", {"config": {}}, "and heun is Cascade's own sampler ode; .* HeunDiscreteScheduler"),
        ("ddim", {"config": {}}, "and ddim is Cascade's own sampler; leave it out, or use a sched"),
    ],
)
def test_unknown_samplers_and_options_without_effect_are_refused(process, name, options, message):
    with pytest.raises(ContractError, match=message):
        make_sampler(name, process, 5, **options)


def test_heun_draws_the_data_on_the_default_schedule(fine_process, gaussian, run):
    sampler = make_sampler("heun", fine_process, 10, threshold="none")
    noise = SeededNoise([0])
    state = sampler.start(noise.normal(1, 64, 64))
    images, _ = run(sampler, gaussian.denoiser(fine_process), state, noise)
    assert images.std().item() == pytest.approx(gaussian.std, abs=0.02)
    assert len(sampler.timesteps) == 19


def test_options_of_an_unknown_sampler_are_refused():
    with pytest.raises(ContractError, match="unknown sampler 'eulr': did you mean 'euler'"):
        option_names("eulr")


@pytest.mark.parametrize("name", sampler_names())
def test_steps_out_of_range_are_refused(process, name):
    for steps in (0, 101):
        with pytest.raises(ContractError, match="from 1 to 100"):
            make_sampler(name, process, steps)
