"""Schedulers of diffusers as samplers: they walk our schedule and converge to the exact flow."""

from types import SimpleNamespace

import pytest
import torch

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.samplers.table import DIFFUSERS_SAMPLERS, make_sampler
from cascade.sampling.steps import ddim_step


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc", "heun", "euler", "deis"])
def test_deterministic_samplers_converge_to_the_exact_flow(fine_process, gaussian, run, name):
    sampler = make_sampler(name, fine_process, 250, threshold="none")
    state = sampler.start(torch.linspace(-3, 3, 13).view(1, 1, 1, 13))
    expected = gaussian.flow(fine_process, sampler.network_input(state, 0), 999)
    images, _ = run(sampler, gaussian.denoiser(fine_process), state, SeededNoise([0]))
    torch.testing.assert_close(images, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize(("name", "ours"), [("euler", "ddim"), ("euler-ancestral", "ddpm")])
def test_first_order_samplers_are_ddim_and_ddpm(fine_process, some_network, run, name, ours):
    theirs = make_sampler(name, fine_process, 20)
    noise = SeededNoise([0, 1])
    state = theirs.start(noise.normal(1, 4, 4))
    x_t = theirs.network_input(state, 0)
    images, _ = run(theirs, some_network, state, noise)
    noise = SeededNoise([0, 1])
    noise.normal(1, 4, 4)
    expected, _ = run(make_sampler(ours, fine_process, 20), some_network, x_t, noise)
    torch.testing.assert_close(images, expected, rtol=0, atol=2e-3)


def test_a_step_too_many_is_refused(fine_process):
    """np.arange(1000, 0, -1000 / 61) has 62 entries, the last of which would be timestep -1."""
    with pytest.raises(ContractError, match="cannot space 61 of 1000"):
        make_sampler("dpmsolver++", fine_process, 61)


def test_schedulers_named_by_class_do_not_clip_on_their_own(process):
    process = NoiseProcess(process.schedule, prediction="x0")
    sampler = make_sampler("DDIMScheduler", process, 2, threshold="none")
    x_t = torch.full((1, 3, 4, 4), 0.5)
    state, _ = sampler.step(torch.full_like(x_t, 3.0), x_t, 0, SeededNoise([0]))
    eps = process.eps(torch.full_like(x_t, 3.0), x_t, torch.tensor([99]))
    expected = ddim_step(process.schedule, torch.full_like(x_t, 3.0), eps, 99, 49, None)
    torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*DIFFUSERS_SAMPLERS, "PNDMScheduler"])
@pytest.mark.parametrize(
    "values",
    [
        {"kind": "linear", "train_steps": 12},
        {"zero_terminal_snr": True},
        {"shift": 0.5},
        {"shift": 0.5, "zero_terminal_snr": True},
    ],
)
def test_they_walk_our_schedule(some_network, run, name, values):
    schedule = NoiseSchedule(**{"train_steps": 100} | values)
    process = NoiseProcess(schedule, prediction="v")
    sampler = make_sampler(name, process, 4)
    table = sampler.scheduler.alphas_cumprod
    torch.testing.assert_close(table, schedule.alpha_bar.float(), rtol=1e-3, atol=1e-5)
    noise = SeededNoise([0])
    images, _ = run(sampler, some_network, sampler.start(noise.normal(1, 4, 4)), noise)
    assert images.isfinite().all()


def test_further_configuration_reaches_the_scheduler(fine_process, some_network, run):
    options = ({}, {"config": {"solver_order": 1}}, {"config": {"solver_order": 2}})
    samplers = [make_sampler("dpmsolver++", fine_process, 8, **each) for each in options]
    assert [each.scheduler.config.solver_order for each in samplers] == [2, 1, 2]
    assert {each.scheduler.config.algorithm_type for each in samplers} == {"dpmsolver++"}
    start = SeededNoise([0]).normal(1, 4, 4)
    default, first, second = (
        run(each, some_network, each.start(start), SeededNoise([0]))[0] for each in samplers
    )
    assert second.equal(default)
    assert not first.equal(default)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"solver_ordr": 3}, "has no setting 'solver_ordr': did you mean 'solver_order'"),
        ("solver_order=3", "config must be a mapping, got 'solver_order=3'"),
        (3, "config must be a mapping, got 3"),
    ],
)
def test_configuration_that_the_scheduler_does_not_have_is_refused(fine_process, config, message):
    with pytest.raises(ContractError, match=message):
        make_sampler("dpmsolver++", fine_process, 5, config=config)


def test_schedulers_that_cannot_use_our_schedule_are_refused(process):
    with pytest.raises(ContractError, match="cannot use the stage's noise schedule"):
        make_sampler("FlowMatchEulerDiscreteScheduler", process, 5)


@pytest.mark.parametrize("key", ["prediction_type", "num_train_timesteps", "trained_betas"])
def test_a_config_cannot_contradict_the_stage(key):
    process = NoiseProcess(NoiseSchedule(train_steps=100))
    with pytest.raises(ContractError, match=f"'{key}' of a scheduler follows from the stage"):
        make_sampler("unipc", process, 5, config={key: 7})


@pytest.mark.parametrize(
    ("name", "steps", "config", "words"),
    [
        ("PNDMScheduler", 3, {}, "PNDMScheduler does not take 3 steps"),
        ("KDPM2AncestralDiscreteScheduler", 2, {}, "does not take 2 steps"),
        ("dpmsolver++", 4, {"algorithm_type": "x"}, "does not take 4 steps and {'algorithm_type'"),
        ("dpmsolver++", 4, {"solver_order": "x"}, "'solver_order': 'x'}"),
        ("CogVideoXDPMScheduler", 4, {}, "CogVideoXDPMScheduler cannot use"),
    ],
)
def test_what_a_scheduler_does_not_take_is_one_line(fine_process, name, steps, config, words):
    with pytest.raises(ContractError) as error:
        make_sampler(name, fine_process, steps, config=config)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_of_the_stage_are_not_suggested(fine_process):
    with pytest.raises(ContractError, match="has no setting 'nosuch': known: solver_order"):
        make_sampler("dpmsolver++", fine_process, 4, config={"nosuch": 1})


def test_a_scheduler_that_computes_nan_is_refused(process):
    sampler = make_sampler("euler-ancestral", process, 3)
    state = sampler.start(torch.zeros(1, 3, 2, 2))
    sampler.scheduler.step = lambda *_, **__: SimpleNamespace(prev_sample=state * torch.nan)
    with pytest.raises(ContractError, match="computed NaN in step 1 of 3; use another number"):
        sampler.step(torch.zeros(1, 3, 2, 2), state, 0, SeededNoise([0]))
