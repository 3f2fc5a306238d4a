from statistics import NormalDist

import pytest
import torch
from diffusers import DDIMScheduler

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import CascadeError, RecipeError

PREDICTIONS = ("eps", "x0", "v")
DIFFUSERS_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


@pytest.fixture
def schedule():
    return NoiseSchedule("linear", train_steps=100)


@pytest.fixture
def images():
    """x0 and eps, (2, 3, 4, 4) each."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 4, 4, generator=generator) * 2 - 1
    return x0, torch.randn(2, 3, 4, 4, generator=generator)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_target_holds_the_image_and_the_noise(schedule, images, prediction):
    process = NoiseProcess(schedule, prediction=prediction)
    x0, eps = images
    for step in range(0, 100, 9):
        t = torch.tensor([step, 99 - step])
        x_t = schedule.add_noise(x0, eps, t)
        target = process.target(x0, eps, t)
        torch.testing.assert_close(process.x0(target, x_t, t), x0, rtol=0, atol=3e-5)
        torch.testing.assert_close(process.eps(x0, x_t, t), eps, rtol=0, atol=3e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predicted_image_equals_diffusers(schedule, images, prediction):
    output, x_t = images
    theirs = DDIMScheduler(
        prediction_type=DIFFUSERS_NAMES[prediction],
        clip_sample=False,
        **schedule.diffusers_config(),
    )
    theirs.set_timesteps(10)
    expected = theirs.step(output, 60, x_t).pred_original_sample
    ours = NoiseProcess(schedule, prediction=prediction).x0(output, x_t, torch.tensor([60, 60]))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_velocity_target_equals_diffusers(schedule, images):
    t = torch.tensor([3, 80])
    expected = DDIMScheduler(**schedule.diffusers_config()).get_velocity(*images, t)
    ours = NoiseProcess(schedule, prediction="v").target(*images, t)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_eps_prediction_is_refused_if_the_last_timestep_is_pure_noise():
    schedule = NoiseSchedule(zero_terminal_snr=True)
    with pytest.raises(RecipeError, match="zero_terminal_snr"):
        NoiseProcess(schedule, prediction="eps")


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_image_comes_out_of_pure_noise(prediction, images):
    schedule = NoiseSchedule(train_steps=100, zero_terminal_snr=True)
    process = NoiseProcess(schedule, prediction=prediction)
    x0, eps = images
    t = torch.tensor([99, 99])
    torch.testing.assert_close(process.x0(process.target(x0, eps, t), eps, t), x0)


@pytest.mark.parametrize(
    ("weighting", "prediction", "formula"),
    [
        ("uniform", "eps", lambda snr, sigma: torch.ones_like(snr)),
        ("uniform", "v", lambda snr, sigma: torch.ones_like(snr)),
        ("min_snr", "eps", lambda snr, sigma: snr.clamp(max=5) / snr),
        ("min_snr", "x0", lambda snr, sigma: snr.clamp(max=5)),
        ("min_snr", "v", lambda snr, sigma: snr.clamp(max=5) / (snr + 1)),
        ("velocity", "eps", lambda snr, sigma: 1 / sigma.clamp(min=0.05) ** 2 / snr),
        ("velocity", "x0", lambda snr, sigma: 1 / sigma.clamp(min=0.05) ** 2),
        ("velocity", "v", lambda snr, sigma: (sigma / sigma.clamp(min=0.05)) ** 2),
    ],
)
def test_weights_equal_their_formulas(weighting, prediction, formula):
    schedule = NoiseSchedule("cosine", train_steps=200)
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    expected = formula(snr, (1 - schedule.alpha_bar).sqrt())
    process = NoiseProcess(schedule, prediction=prediction, weighting=weighting)
    weight = process.weight(torch.arange(200)).flatten()
    torch.testing.assert_close(weight, expected.float(), rtol=1e-4, atol=1e-7)


def test_gamma_of_min_snr_is_the_one_asked_for():
    process = NoiseProcess(NoiseSchedule(), prediction="x0", weighting="min_snr", min_snr_gamma=2.0)
    assert process.weight(torch.arange(1000)).max() == 2.0


@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "velocity"])
@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_weights_are_finite_where_snr_is_zero(weighting, prediction):
    schedule = NoiseSchedule(train_steps=50, zero_terminal_snr=True)
    process = NoiseProcess(schedule, prediction=prediction, weighting=weighting)
    weight = process.weight(torch.arange(50))
    assert weight.isfinite().all()
    assert (weight >= 0).all()


def test_min_snr_of_eps_stays_finite_as_snr_underflows():
    schedule = NoiseSchedule("cosine", train_steps=50, shift=1e-25)
    process = NoiseProcess(schedule, prediction="eps", weighting="min_snr")
    assert process.weight(torch.arange(50)).isfinite().all()


def test_uniform_timesteps_are_equally_frequent():
    process = NoiseProcess(NoiseSchedule(train_steps=50))
    t = process.draw_timesteps((torch.arange(5000) + 0.5) / 5000)
    assert torch.bincount(t).tolist() == [100] * 50


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_logit_normal_timesteps_are_quantiles_of_log_snr(zero_terminal_snr):
    schedule = NoiseSchedule(train_steps=1000, zero_terminal_snr=zero_terminal_snr)
    process = NoiseProcess(schedule, timesteps="logit_normal", logit_mean=-0.5, logit_std=0.7)
    quantiles = [0.01, 0.1, 0.5, 0.7, 0.99]
    t = process.draw_timesteps(torch.tensor(quantiles, dtype=torch.float64))
    expected = torch.tensor([NormalDist(-0.5, 0.7).inv_cdf(q) for q in quantiles])
    torch.testing.assert_close(schedule.log_alpha_sigma[t].float(), expected, rtol=0, atol=0.01)


def test_predictions_are_reliable_down_to_four_standard_deviations_above_the_mean():
    schedule = NoiseSchedule()

    def lowest(**values) -> int:
        return NoiseProcess(schedule, **values).lowest_reliable_timestep

    assert lowest(timesteps="uniform") == 0
    assert lowest(prediction="x0", timesteps="last") == 999
    for mean, std in ((-0.8, 0.8), (-2.0, 0.5)):
        t = lowest(timesteps="logit_normal", logit_mean=mean, logit_std=std)
        assert (schedule.log_alpha_sigma[t] - mean) / std == pytest.approx(4, abs=0.03)
    assert lowest(timesteps="logit_normal", logit_mean=1.8, logit_std=1.2) == 0


@pytest.mark.parametrize("timesteps", ["uniform", "logit_normal"])
def test_the_ends_of_the_unit_interval_are_timesteps(timesteps):
    process = NoiseProcess(NoiseSchedule(train_steps=50), timesteps=timesteps, logit_std=50.0)
    t = process.draw_timesteps(torch.tensor([0.0, 1 - 2**-24]))
    assert sorted(t.tolist()) == [0, 49]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "velocity"])
def test_a_perfect_network_has_no_loss_and_a_wrong_one_its_weighted_error(
    schedule, images, prediction, weighting
):
    process = NoiseProcess(schedule, prediction=prediction, weighting=weighting)
    x0, eps = images
    t = torch.tensor([10, 70])
    x_t = schedule.add_noise(x0, eps, t)
    target = process.target(x0, eps, t)
    before = [tensor.clone() for tensor in (x0, x_t, eps, t)]
    assert process.loss(target, x0, x_t, eps, t).tolist() == [0, 0]
    wrong = target + torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)
    expected = torch.tensor([0.25, 4.0]) * process.weight(t).flatten()
    torch.testing.assert_close(process.loss(wrong, x0, x_t, eps, t), expected)
    for tensor, copied in zip((x0, x_t, eps, t), before, strict=True):
        assert tensor.equal(copied)


def test_learned_variance_channels_are_the_second_half(schedule):
    output = torch.arange(2.0 * 6 * 4 * 4).view(2, 6, 4, 4)
    prediction, variance = NoiseProcess(schedule, learned_variance=True).split(output)
    assert prediction.equal(output[:, :3])
    assert variance.equal(output[:, 3:])
    whole, none = NoiseProcess(schedule).split(output)
    assert whole.equal(output)
    assert none is None


def test_variational_term_teaches_the_variance_and_not_the_mean(schedule, images):
    x0, eps = images
    t = torch.tensor([0, 40])  # the likelihood and the divergence
    x_t = schedule.add_noise(x0, eps, t)
    output = torch.cat([0.9 * eps, torch.zeros_like(eps)], dim=1).requires_grad_()
    learned = NoiseProcess(schedule, prediction="eps", learned_variance=True)
    learned.loss(output, x0, x_t, eps, t).sum().backward()
    mean = (0.9 * eps).requires_grad_()
    NoiseProcess(schedule, prediction="eps").loss(mean, x0, x_t, eps, t).sum().backward()
    torch.testing.assert_close(output.grad[:, :3], mean.grad, rtol=0, atol=0)
    assert (output.grad[:, 3:] != 0).all()


@pytest.mark.parametrize("learned", [False, True])
def test_what_does_not_count_is_in_no_term_of_the_loss(schedule, images, learned):
    """The loss of the left columns alone is that of images that are no wider."""
    x0, eps = images
    t = torch.tensor([0, 40])  # the likelihood and the divergence
    x_t = schedule.add_noise(x0, eps, t)
    draw = torch.Generator().manual_seed(0)
    output = torch.rand(2, 6 if learned else 3, *x0.shape[-2:], generator=draw)
    counted = torch.zeros(2, 1, *x0.shape[-2:])
    counted[..., :2] = 1
    process = NoiseProcess(schedule, learned_variance=learned)
    ours = process.loss(output, x0, x_t, eps, t, counted=counted)
    alone = process.loss(*(each[..., :2] for each in (output, x0, x_t, eps)), t)
    torch.testing.assert_close(ours, alone)


@pytest.mark.parametrize(
    "values", [{"prediction": "mu"}, {"weighting": "p2"}, {"timesteps": "beta"}]
)
def test_unknown_names_are_refused(schedule, values):
    ((name, value),) = values.items()
    with pytest.raises(RecipeError, match=f"{name} must be one of .* got '{value}'"):
        NoiseProcess(schedule, **values)


@pytest.mark.parametrize("name", ["min_snr_gamma", "logit_std"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_numbers_that_must_be_above_0_are_checked(schedule, name, value):
    with pytest.raises(RecipeError, match=f"{name} must be above 0, and finite, got {value}"):
        NoiseProcess(schedule, **{name: value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"logit_mean": float("nan")}, "logit_mean must be a finite number, got nan"),
        ({"logit_mean": "low"}, "logit_mean must be a number, got 'low'"),
        ({"min_snr_gamma": "5"}, "min_snr_gamma must be a number, got '5'"),
        ({"learned_variance": "no"}, "learned_variance must be True or False, got 'no'"),
        ({"prediction": "x0", "residual_std": "1"}, "residual_std must be a number, got '1'"),
        ({"prediction": "x0", "residual_std": float("inf")}, "residual_std must be .* got inf"),
    ],
)
def test_wrong_values_are_refused_in_one_line(schedule, values, words):
    with pytest.raises(CascadeError, match=words):
        NoiseProcess(schedule, **values)


def test_last_timesteps_hold_nothing_of_the_image():
    process = NoiseProcess(NoiseSchedule("cosine"), prediction="x0", timesteps="last")
    t = process.draw_timesteps(torch.tensor([0.0, 0.3, 1 - 2**-24]))
    assert t.tolist() == [999, 999, 999]
    assert process.schedule.alpha_sigma(t)[0].max() < 1e-3
    assert process.schedule.sampling_timesteps(1) == [999]  # where one step of sampling starts
