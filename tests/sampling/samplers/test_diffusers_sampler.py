"""Schedulers of diffusers as samplers: they walk our schedule and converge to the exact flow."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.samplers.table import DIFFUSERS_SAMPLERS, make_sampler
from cascade.sampling.steps import ddim_step

needs_scipy = pytest.mark.skipif(
    importlib.util.find_spec("scipy") is None, reason="diffusers needs scipy for it"
)


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc", "HeunDiscreteScheduler", "euler", "deis"])
def test_deterministic_samplers_converge_to_the_exact_flow(fine_process, gaussian, run, name):
    sampler = make_sampler(name, fine_process, 250, threshold="none")
    state = sampler.start(torch.linspace(-3, 3, 13).view(1, 1, 1, 13))
    expected = gaussian.flow(fine_process, sampler.network_input(state, 0), 999)
    images, _ = run(sampler, gaussian.denoiser(fine_process), state, SeededNoise([0]))
    torch.testing.assert_close(images, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize(
    "name", ["dpmsolver++", "unipc", "deis", "euler", "DPMSolverSinglestepScheduler"]
)
@pytest.mark.parametrize("spacing", ["karras_sigmas", "exponential_sigmas", "lu_lambdas"])
def test_spacings_that_visit_a_timestep_more_than_once_draw_the_data(
    fine_process, gaussian, run, name, spacing
):
    """The last beta is clipped, so that the first sigma is 20,000, and 640 a timestep later."""
    if spacing == "lu_lambdas" and name != "dpmsolver++":
        pytest.skip("the scheduler has no such spacing")
    options = {"config": {f"use_{spacing}": True}}
    sampler = make_sampler(name, fine_process, 20, threshold="none", **options)
    assert len(set(sampler.timesteps)) < len(sampler.timesteps)
    noise = SeededNoise([0])
    state = sampler.start(noise.normal(1, 64, 64))
    images, _ = run(sampler, gaussian.denoiser(fine_process), state, noise)
    assert images.mean().item() == pytest.approx(gaussian.mean, abs=0.02)
    assert 0.65 * gaussian.std < images.std().item() < 1.2 * gaussian.std


@pytest.mark.parametrize("name", ["dpmsolver++", "unipc", "deis", "euler"])
def test_known_pixels_are_as_noisy_as_the_walk_where_timesteps_repeat(fine_process, name):
    options = {"config": {"use_karras_sigmas": True}}
    sampler = make_sampler(name, fine_process, 20, **options)
    x0, eps = torch.full((1, 1, 4, 4), 0.5), SeededNoise([1]).normal(1, 4, 4)
    state = sampler.noised(x0, eps, 0)
    for index, timestep in enumerate(sampler.timesteps):
        fresh = make_sampler(name, fine_process, 20, **options)
        for each in (sampler, fresh):
            x_t = each.network_input(each.noised(x0, eps, index), index)
            expected = sampler.network_input(state, index)
            torch.testing.assert_close(x_t, expected, rtol=0, atol=2e-3)
        t = torch.tensor([timestep])
        x_t = sampler.network_input(state, index)
        output = fine_process.target(x0, fine_process.eps(x0, x_t, t), t)
        state, _ = sampler.step(output, state, index, SeededNoise([0]))


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        *(
            (name, {"use_flow_sigmas": True}, "in step [0-9]+, at timestep [0-9]+, scales the")
            for name in ("dpmsolver++", "unipc", "deis", "DPMSolverSinglestepScheduler")
        ),
        ("euler", {"interpolation_type": "log_linear"}, "scales the image by"),
        ("CogVideoXDDIMScheduler", {}, "scales the image by"),
        ("DDIMInverseScheduler", {}, "starts at timestep 49 of 1000, where images are not noise"),
        ("DPMSolverMultistepInverseScheduler", {}, "starts at timestep 49 of 1000"),
        pytest.param(
            "dpmsolver++",
            {"use_beta_sigmas": True},
            "1% of their contrast in 20 steps .ddim: 92%",
            marks=needs_scipy,
        ),
        ("HeunDiscreteScheduler", {}, "2[0-9]+% of their contrast in 20 steps.*the sampler ode"),
    ],
)
def test_schedulers_that_would_draw_something_else_are_refused(fine_process, name, config, words):
    with pytest.raises(ContractError, match=words) as error:
        make_sampler(name, fine_process, 20, config=config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("steps", [2, 3, 10, 50, 200])
@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_other_noise_levels_are_refused_in_any_number_of_steps(kind, steps):
    process = NoiseProcess(NoiseSchedule(kind))
    for name, config in (("unipc", {"use_flow_sigmas": True}), ("CogVideoXDDIMScheduler", {})):
        with pytest.raises(ContractError, match="and the stage's noise schedule by"):
            make_sampler(name, process, steps, config=config)


def test_heun_of_diffusers_works_where_the_first_sigma_is_small(gaussian, run):
    process = NoiseProcess(NoiseSchedule("linear"))
    sampler = make_sampler("HeunDiscreteScheduler", process, 20, threshold="none")
    noise = SeededNoise([0])
    state = sampler.start(noise.normal(1, 64, 64))
    images, _ = run(sampler, gaussian.denoiser(process), state, noise)
    assert images.std().item() == pytest.approx(gaussian.std, abs=0.04)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DDPMScheduler", {"variance_type": "fixed_large"}),
        ("PNDMScheduler", {}),
        ("LCMScheduler", {}),
        ("TCDScheduler", {}),
        ("KDPM2DiscreteScheduler", {}),
        pytest.param("LMSDiscreteScheduler", {}, marks=needs_scipy),
        ("SASolverScheduler", {}),
        ("dpmsolver++", {"algorithm_type": "sde-dpmsolver++"}),
        ("dpmsolver++", {"lambda_min_clipped": -5.1}),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 5.0}),
    ],
)
def test_schedulers_that_keep_to_the_noise_levels_are_taken(fine_process, name, config):
    assert make_sampler(name, fine_process, 20, config=config).steps == 20


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


def test_few_steps_of_a_scheduler_that_diverges_are_refused():
    process = NoiseProcess(NoiseSchedule("linear", train_steps=12))
    with pytest.raises(ContractError, match=r"scales the noise by [0-9.]+, and the stage's"):
        make_sampler("deis", process, 4)


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
    sampler = make_sampler(name, process, 12 if name == "deis" else 4)
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


def test_a_scheduler_that_fails_in_a_step_is_one_line(process):
    sampler = make_sampler("unipc", process, 3)

    def step(*_, **__):
        raise IndexError("index 4 is out of bounds.\nfurther lines")

    sampler.scheduler.step = step
    state = torch.zeros(1, 3, 2, 2)
    words = (
        r"UniPCMultistepScheduler failed in step 2 of 3 \(IndexError: index 4 is out of bounds\);"
    )
    with pytest.raises(ContractError, match=words):
        sampler.step(state, state, 1, SeededNoise([0]))


def test_memory_that_runs_out_in_a_step_is_not_the_scheduler_s_fault(process):
    """Smaller tiles are tried then."""
    sampler = make_sampler("unipc", process, 3)

    def step(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    sampler.scheduler.step = step
    state = torch.zeros(1, 3, 2, 2)
    with pytest.raises(torch.OutOfMemoryError):
        sampler.step(state, state, 1, SeededNoise([0]))


def test_contrast_may_be_low_where_a_conditioning_image_gives_it():
    config = {"use_karras_sigmas": True}
    schedule = NoiseSchedule("cosine", shift=4.0)
    upsampler = NoiseProcess(schedule, prediction="x0", residual_std=0.1)
    assert make_sampler("dpmsolver++", upsampler, 4, config=config).timesteps
    with pytest.raises(ContractError, match="of their contrast in 4 steps"):
        make_sampler("dpmsolver++", NoiseProcess(schedule, prediction="x0"), 4, config=config)
