"""Steps within segments, compared with closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion.segments import Segments, SegmentStep, grid_steps
from cascade.errors import ContractError
from cascade.sampling.steps import ddim_step

SCHEDULES = [
    NoiseSchedule(),
    NoiseSchedule(shift=4.0),
    NoiseSchedule("linear", zero_terminal_snr=True),
]


def times(*values: int) -> Tensor:
    return torch.tensor(values)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def carried(schedule, x0, x_t, t, end):
    """Where one DDIM step with x0 leads, in float64."""
    x0, x_t = x0.double(), x_t.double()
    alpha, sigma = (math.sqrt(each) for each in (schedule.alpha_bar[t], 1 - schedule.alpha_bar[t]))
    return ddim_step(schedule, x0, (x_t - alpha * x0) / sigma, t, end, None)


# ---- the grid -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 1000])
def test_the_ends_are_where_a_sampler_of_as_many_steps_stops(count):
    schedule = NoiseSchedule()
    assert Segments(schedule, count).ends == [-1, *schedule.sampling_timesteps(count)[::-1]]


@pytest.mark.parametrize("steps", [1, 10, 64, 5000])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_steps_of_a_grid_join_and_cover_each_segment(count, steps):
    segments = Segments(NoiseSchedule(train_steps=600), count)
    every = torch.arange(1200) / 1200
    u = torch.cartesian_prod(torch.arange(count) / count + 0.01, every)
    step = segments.draw(u, steps)
    drawn = set(zip(step.end.tolist(), step.s.tolist(), step.t.tolist(), strict=True))
    for low, high in itertools.pairwise(segments.ends):
        pairs = sorted((s, t) for end, s, t in drawn if end == low)
        assert [s for s, _ in pairs] == [low, *(t for _, t in pairs[:-1])]
        assert pairs[-1][1] == high
        assert len(pairs) == min(max(1, round(steps / count)), high - low)


@pytest.mark.parametrize("count", [1, 4, 50])
def test_the_clean_image_is_reached_from_the_last_timestep_and_from_none_below(count):
    u = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    step = Segments(NoiseSchedule(), count).draw(u, 200, last=49)
    clean = step.s == -1
    assert clean.any()
    assert set(step.t[clean].tolist()) == {max(49, step.t.min()) if count < 50 else 19}
    assert step.t[~clean].min() > (49 if count < 20 else 19)


def test_each_segment_and_each_step_in_it_is_as_likely_as_others():
    u = torch.rand(8_000, 2, generator=torch.Generator().manual_seed(0))
    step = Segments(NoiseSchedule(), 4).draw(u, 8)
    counts = torch.bincount(step.t, minlength=1000)
    assert len(counts.nonzero()) == 8
    assert counts[counts > 0].min() > 0.9 * 8_000 / 8


def test_the_grid_grows_by_a_constant_factor():
    assert [grid_steps(64, 1280, share) for share in (0, 0.5, 1)] == [64, 286, 1280]
    assert grid_steps(7, 7, 0.3) == 7


def test_more_segments_than_timesteps_are_refused():
    with pytest.raises(ContractError, match="steps must be from 1 to 100"):
        Segments(NoiseSchedule(train_steps=100), 101)


# ---- one step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("variance", [0.0, 0.2])
def test_a_target_leads_to_where_the_two_steps_lead(schedule, variance):
    t, s, end = times(999, 700, 300, 20), times(900, 650, 299, 3), times(499, 499, 249, -1)
    process = NoiseProcess(schedule)
    step = SegmentStep(schedule, t, s, end)
    near, later, x_t = images(4), images(4, 1), images(4, 2)
    x_s, adjustment = step.take(near, process.eps(near, x_t, t), torch.full((4,), variance))
    target = step.target(near, later, adjustment)
    for i in range(4):
        direct = carried(schedule, target[i], x_t[i], int(t[i]), int(end[i]))
        in_two = carried(schedule, later[i], x_s[i], int(s[i]), int(end[i]))
        torch.testing.assert_close(direct, in_two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@pytest.mark.parametrize("variance", [0.0, 0.2])
def test_a_step_to_the_end_of_the_segment_gives_exactly_x_s(schedule, variance):
    t, end = times(999, 700, 251, 20), times(499, 499, 249, -1)
    process = NoiseProcess(schedule)
    step = SegmentStep(schedule, t, end, end)
    near, x_t = images(4), images(4, 2)
    x_s, adjustment = step.take(near, process.eps(near, x_t, t), torch.full((4,), variance))
    target = step.target(near, torch.full_like(near, torch.nan), adjustment)
    for i in range(4):
        direct = carried(schedule, target[i], x_t[i], int(t[i]), int(end[i]))
        torch.testing.assert_close(direct.float(), x_s[i], rtol=1e-5, atol=1e-6)
    assert target[3].equal(near[3])


def test_the_true_image_and_its_noise_lead_to_the_same_image_with_less_of_that_noise():
    schedule = NoiseSchedule()
    t, s = times(999, 400, 30), times(800, 399, -1)
    step = SegmentStep(schedule, t, s, times(-1, -1, -1))
    x0, eps = images(3), images(3, 1)
    x_s, adjustment = step.take(x0, eps, torch.zeros(3))
    torch.testing.assert_close(x_s[:2], schedule.add_noise(x0, eps, s.clamp(min=0))[:2])
    assert x_s[2].equal(x0[2])
    assert not adjustment.any()


def test_an_adjusted_step_keeps_the_spread_of_gaussian_data():
    """With the best prediction, DDIM's long steps lose spread, and adjusted ones do not."""
    schedule, std = NoiseSchedule(), 0.5
    process, t, s = NoiseProcess(schedule), times(900), times(400)
    x_t = images(1) * 0
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule.alpha_sigma(t)
    spread = (alpha**2 * std**2 + sigma**2).sqrt()
    x_t = spread * noise
    x0 = alpha * std**2 / spread**2 * x_t
    eps = process.eps(x0, x_t, t)
    lost = (std * sigma / spread).square().view(1)
    step = SegmentStep(schedule, t, s, times(-1))
    alpha, sigma = (float(each) for each in schedule.alpha_sigma(s))
    true = math.sqrt(alpha**2 * std**2 + sigma**2)
    plain, adjusted = (float(step.take(x0, eps, v)[0].std()) for v in (torch.zeros(1), lost))
    assert plain < 0.97 * true
    assert abs(adjusted / true - 1) < 0.01


# ---- many steps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_adjusted", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_on_gaussian_data_the_student_crosses_segments_as_the_closed_form_of_the_ode(
    count, is_adjusted
):
    """The probability flow of N(0, std^2) scales x_t by the ratio of the standard deviations.

    The student is a number per timestep, found from the targets in the order of the timesteps.
    The adjustment takes signal and noise to be independent. On this data they are not at the last
    few timesteps, where all of x_t is signal, so a segment that ends there is not checked with it.
    """
    schedule, std = NoiseSchedule(train_steps=250), 0.5
    process = NoiseProcess(schedule)
    alpha_bar = schedule.alpha_bar
    spread = (alpha_bar * std**2 + 1 - alpha_bar).sqrt()
    ends = Segments(schedule, count).ends[1 if is_adjusted else 0 :]
    x_t = torch.ones(1, 1, 2, 2)
    for low, high in itertools.pairwise(ends):
        answer = 0.0  # the student's x0 at s, as a multiple of x_s
        for t in range(low + 1, high + 1):
            step = SegmentStep(schedule, times(t), times(t - 1), times(low))
            near = float(alpha_bar[t].sqrt() * std**2 / spread[t] ** 2) * x_t
            lost = (1 - alpha_bar[t]) * std**2 / spread[t] ** 4 * is_adjusted  # of x_t / spread
            x_s, adjustment = step.take(
                near, process.eps(near, x_t, times(t)), lost.float().view(1)
            )
            answer = float(step.target(near, answer * x_s, adjustment).mean())
        end = std if low < 0 else float(spread[low])
        reached = carried(schedule, answer * x_t, x_t, high, low)
        assert float(reached.mean()) == pytest.approx(end / float(spread[high]), rel=0.007)
