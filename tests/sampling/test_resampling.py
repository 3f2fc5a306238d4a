"""Going over steps again: the order of the moves, and new pixels that fit known ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import ContractError
from cascade.sampling.known_pixels import Known, KnownPixels
from cascade.sampling.resampling import Resampling
from cascade.sampling.samplers.sampler import Sampler
from cascade.sampling.samplers.table import make_sampler
from cascade.sampling.steps import forward_step
from cascade.sampling.walk import Hooks, StartFrom, walk


@pytest.fixture
def process() -> NoiseProcess:
    return NoiseProcess(NoiseSchedule("cosine", train_steps=1000), prediction="x0")


# ---- the moves ----------------------------------------------------------------------------------


def test_without_resamplings_a_walk_takes_each_step_once():
    assert list(Resampling().moves(0, 3)) == [(0, 1), (1, 2), (2, 3)]
    assert list(Resampling(jump_length=2).moves(1, 3)) == [(1, 2), (2, 3)]


def test_parts_are_counted_from_the_end_and_each_is_walked_again():
    moves = list(Resampling(resamplings=2, jump_length=2).moves(0, 5))
    assert moves == [
        (0, 1), (1, 0), (0, 1),
        (1, 2), (2, 3), (3, 1), (1, 2), (2, 3),
        (3, 4), (4, 5), (5, 3), (3, 4), (4, 5),
    ]  # fmt: skip


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize(("resamplings", "jump_length"), [(1, 5), (3, 4), (4, 1), (2, 50)])
def test_moves_join_and_each_step_is_taken_as_often_as_asked(first, resamplings, jump_length):
    resampling = Resampling(resamplings=resamplings, jump_length=jump_length)
    moves = list(resampling.moves(first, 10))
    assert moves[0][0] == first
    assert moves[-1][1] == 10
    assert all(before[1] == after[0] for before, after in itertools.pairwise(moves))
    steps = [move[0] for move in moves if move[1] > move[0]]
    assert sorted(steps) == sorted(list(range(first, 10)) * resamplings)
    assert all(move[0] - move[1] <= jump_length for move in moves)


@pytest.mark.parametrize("values", [{"resamplings": 0}, {"jump_length": 0}, {"resamplings": 1.5}])
def test_counts_below_one_are_refused(values):
    with pytest.raises(ContractError, match=rf"{next(iter(values))} must be .*at least 1"):
        Resampling(**values)


# ---- a step to more noise -----------------------------------------------------------------------


@pytest.mark.parametrize(("t_prev", "t"), [(-1, 0), (-1, 700), (99, 137), (400, 999)])
def test_a_step_to_more_noise_gives_the_distribution_at_that_level(process, t_prev, t):
    """Noise of both steps adds up to the noise of q(x_t | x0), in closed form."""
    schedule = process.schedule
    x0, eps, noise = torch.tensor(0.7), torch.tensor(1.0), torch.tensor(1.0)
    before = schedule.alpha_bar_at(t_prev)
    alone = {}
    for name, values in {"x0": (x0, 0, 0), "eps": (0, eps, 0), "noise": (0, 0, noise)}.items():
        clean, old, fresh = (torch.as_tensor(float(each)) for each in values)
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * old
        forward_step(schedule, x, t_prev, t, fresh)
        alone[name] = float(x)
    after = schedule.alpha_bar_at(t)
    assert alone["x0"] == pytest.approx(0.7 * math.sqrt(after), abs=1e-6)
    assert alone["eps"] ** 2 + alone["noise"] ** 2 == pytest.approx(1 - after, abs=1e-6)


def test_known_pixels_have_the_noise_of_the_canvas_after_a_jump(process):
    """One draw of the forward process reaches all pixels, known and unknown."""
    sampler = make_sampler("ddim", process, 10)
    image = torch.full((1, 1, 1, 4), 0.5)
    noise = torch.randn(2, 1, 1, 4)
    mask = torch.tensor([[True, False, True, False]])
    for index in (7, 10):
        pixels = KnownPixels(Known(image, mask), noise)
        canvas = torch.zeros(2, 1, 1, 4)
        pixels.put_into(canvas, sampler, None if index == 10 else index)
        fresh = torch.randn(2, 1, 1, 4)
        sampler.take_back(canvas, fresh, index, 4)
        pixels.follow_back(fresh, sampler, index, 4)
        expected = canvas.clone()
        pixels.put_into(canvas, sampler, 4)
        torch.testing.assert_close(canvas, expected, atol=1e-5, rtol=0)


# ---- Gaussian data: the conditional mean and variance, in closed form ----------------------------

COVARIANCE = 0.25 * 0.8 ** (torch.arange(4.0).double()[:, None] - torch.arange(4.0)).abs()
MEAN = torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64)
VALUES = torch.tensor([0.8, 0.0, 0.0, -0.3], dtype=torch.float64)
KNOWN = torch.tensor([True, False, False, True])
COUNT = 3000


def conditional(known: Tensor = KNOWN) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the unknown pixels given the known ones."""
    gain = COVARIANCE[~known][:, known] @ torch.linalg.inv(COVARIANCE[known][:, known])
    mean = MEAN[~known] + gain @ (VALUES[known] - MEAN[known])
    return mean, COVARIANCE[~known][:, ~known] - gain @ COVARIANCE[known][:, ~known]


@dataclass
class BestDenoiser:
    """The exact E[x0 | x_t] of Gaussian pixels.

    Attributes:
        process: noise schedule.
        sees_known: whether it is also given the known pixels, as a stage with a mask is.
    """

    process: NoiseProcess
    sees_known: bool = False
    count: int = 1
    calls: int = 0

    def outputs(
        self, canvas: Tensor, sampler: Sampler, index: int
    ) -> Iterator[tuple[slice, Tensor]]:
        self.calls += 1
        alpha_bar = self.process.schedule.alpha_bar_at(sampler.timesteps[index])
        x = canvas[:, 0, 0].double()
        x0 = VALUES.expand(len(x), -1).clone()
        free = ~KNOWN if self.sees_known else torch.ones(4, dtype=torch.bool)
        mean, covariance = conditional() if self.sees_known else (MEAN, COVARIANCE)
        noisy = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(len(mean))
        gain = math.sqrt(alpha_bar) * covariance @ torch.linalg.inv(noisy)
        x0[:, free] = mean + (x[:, free] - math.sqrt(alpha_bar) * mean) @ gain.T
        yield slice(None), x0.float()[:, None, None]


class Fresh:
    """Noise for many images from one generator, which is quick."""

    rows = slice(None)
    temperature = 1.0

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def new_step(self) -> None:
        pass

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(COUNT, *shape, generator=self.generator)


def filled_holes(process, network, name, steps, resampling, known=KNOWN):
    """Mean and standard deviations of the unknown pixels of many walks."""
    sampler = make_sampler(name, process, steps, threshold="none")
    noise = torch.randn(COUNT, 1, 1, 4, generator=torch.Generator().manual_seed(0))
    pixels = Known(VALUES.float().view(1, 1, 1, 4), known[None])
    hooks = Hooks(known=pixels, resampling=resampling)
    images = walk(sampler, network, noise, Fresh(), hooks)[:, 0, 0]
    assert images[:, known].eq(VALUES.float()[known]).all()
    hole = images[:, ~known].double()
    return hole.mean(dim=0), hole.std(dim=0)


def test_resampling_approaches_the_conditional_distribution(process):
    """Known pixels put in at each step leave the mean 0.13 and the spread 32 % off.

    Ten resamplings of jumps over a twentieth of the walk leave 0.011 and 5 %: what the steps'
    own variance (that of the posterior for a known x0) and the length of the jumps cost.
    """
    mean, covariance = conditional()
    std = covariance.diagonal().sqrt()
    network = BestDenoiser(process)
    plain, plain_std = filled_holes(process, network, "ddpm", 200, Resampling())
    assert network.calls == 200
    assert (plain - mean).abs().max() > 0.08
    assert (plain_std / std - 1).abs().max() > 0.2
    resampling = Resampling(resamplings=10, jump_length=10)
    better, better_std = filled_holes(process, network, "ddpm", 200, resampling)
    assert network.calls == 200 + 2000
    assert (better - mean).abs().max() < 0.03  # 5 standard errors of 3000 walks are 0.025
    assert (better_std / std - 1).abs().max() < 0.08


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_a_network_that_sees_the_known_pixels_needs_no_resampling(process, name):
    mean, covariance = conditional()
    std = covariance.diagonal().sqrt()
    network = BestDenoiser(process, sees_known=True)
    found, found_std = filled_holes(process, network, name, 100, Resampling())
    assert (found - mean).abs().max() < 0.025
    # The posterior's variance for a known x0, which 100 steps of ddpm use, is 5 % too narrow.
    assert (found_std / std - 1).abs().max() < (0.05 if name == "ddim" else 0.09)


def test_without_known_pixels_resampling_leaves_the_distribution(process):
    nothing = torch.zeros(4, dtype=torch.bool)
    network, resampling = BestDenoiser(process), Resampling(resamplings=3, jump_length=20)
    mean, std = filled_holes(process, network, "ddpm", 100, resampling, nothing)
    assert (mean - MEAN).abs().max() < 0.05
    assert (std / COVARIANCE.diagonal().sqrt() - 1).abs().max() < 0.08


# ---- hooks --------------------------------------------------------------------------------------


def test_progress_counts_all_steps_and_callbacks_see_them(process):
    reports, places = [], []
    hooks = Hooks(
        resampling=Resampling(resamplings=2, jump_length=2),
        start_from=StartFrom(torch.zeros(COUNT, 1, 1, 4), 0.75),
        progress=lambda *at: reports.append(at),
        callback=lambda index, t, tensors: places.append((index, t)),
    )
    sampler = make_sampler("ddim", process, 4)
    walk(sampler, BestDenoiser(process), torch.zeros(COUNT, 1, 1, 4), Fresh(), hooks)
    assert [index for index, _ in places] == [1, 1, 2, 3, 2, 3]
    assert [t for _, t in places] == [sampler.timesteps[index] for index, _ in places]
    assert reports == [(number, 7) for number in range(2, 8)]


@pytest.mark.parametrize("name", ["euler", "ode", "predictor-corrector", "langevin"])
def test_samplers_that_cannot_go_back_are_refused_before_any_step(process, name):
    network = BestDenoiser(process)
    sampler = make_sampler(name, process, 4)
    with pytest.raises(
        ContractError, match="only the samplers ddim, ddpm and euler-maruyama can repeat"
    ):
        walk(
            sampler, network, torch.zeros(COUNT, 1, 1, 4), Fresh(),
            Hooks(resampling=Resampling(resamplings=2)),
        )  # fmt: skip
    assert network.calls == 0
