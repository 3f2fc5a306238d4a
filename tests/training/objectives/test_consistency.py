"""Consistency: its loss against closed forms, what teacher and student see, what is refused."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.batch import Batch
from cascade.conditioning.labels import Labels
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion.segments import Segments
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.resizing import resize
from cascade.sampling.guidance import Guidance
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.student import Student
from cascade.space import Space
from cascade.training.grids import draw_samples
from cascade.training.objectives.consistency import SMOOTH_BELOW, UNIPC_CONFIGS, Consistency
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.table import make_objective
from cascade.training.objectives.teacher import Teacher
from cascade.training.students import student_of

CPU = torch.device("cpu")


@pytest.fixture
def batch(low_res, labels):
    """Four images of 32 px with labels."""
    images = resize(low_res[:4], (32, 32), "bilinear")
    return Batch(images=images, seeds=(3, 4, 5, 6), conditions={"labels": labels[:4]})


@pytest.fixture
def small_batch(low_res, labels):
    """Four images of 16 px with labels."""
    return Batch(images=low_res[:4], seeds=(3, 4, 5, 6), conditions={"labels": labels[:4]})


def trained_by(objective: Consistency, stage: DiffusionStage) -> Consistency:
    objective.check(stage)
    objective.begin(stage, CPU)
    return objective


def without_teacher(stage: DiffusionStage, steps: int) -> DiffusionStage:
    contract = replace(stage.contract, student=Student(steps=steps))
    return DiffusionStage(stage.network, stage.process, contract)


# ---- the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 100])
def test_with_segments_of_one_step_it_is_the_plain_loss_of_v(base_stage, small_batch, steps):
    student = without_teacher(base_stage, steps)
    objective = trained_by(Consistency(grid=(steps, steps)), student)
    u = torch.linspace(0, 0.99, 4)[:, None].expand(4, 2)
    step = Segments(student.process.schedule, steps).draw(u, steps)
    plain = Denoising().loss_at(base_stage, small_batch, step.t)  # v, uniform: SNR + 1 for x0
    expected = (plain + SMOOTH_BELOW**2).sqrt() - SMOOTH_BELOW
    loss = objective.loss_of(student, small_batch, step)
    # Tables and losses are float32, which is right to 1.2e-7 of a number.
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_loss_of_an_image_depends_on_its_seed_alone(upsampler, batch):
    student = student_of(upsampler, steps=4)
    objective = trained_by(Consistency(upsampler), student)
    together = objective.loss(student, batch)
    assert together.shape == (4,)
    for part, loss in zip(batch.parts(4), together, strict=True):
        torch.testing.assert_close(objective.loss(student, part)[0], loss, rtol=1e-4, atol=1e-6)
    assert objective.loss(student, replace(batch, seeds=(7, 8, 9, 10))).ne(together).all()


def test_only_the_student_gets_gradients(base_stage, small_batch):
    student = student_of(base_stage, steps=4)
    before = copy.deepcopy(base_stage.state_dict())
    objective = trained_by(Consistency(base_stage), student)
    objective.loss(student, small_batch).sum().backward()
    assert all(each.grad is None for each in base_stage.parameters())
    assert any(each.grad is not None and each.grad.any() for each in student.parameters())
    assert all(value.equal(before[name]) for name, value in base_stage.state_dict().items())


@pytest.mark.parametrize(
    "process",
    [
        {"prediction": "eps"},
        {"prediction": "x0"},
        {"prediction": "v"},
        {"prediction": "eps", "learned_variance": True},
        {"prediction": "x0", "residual_std": 0.1},
    ],
    ids=str,
)
def test_every_prediction_can_be_a_student(upsampler, batch, process):
    conditions = upsampler.contract.changed(
        lambda each: each if each.name == "labels" else replace(each, drop=0.0)
    )
    torch.manual_seed(0)
    teacher = DiffusionStage.build(
        conditions,
        NoiseProcess(upsampler.process.schedule, **process),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        sampling=SamplingSettings(steps=10, augmentation_level=0.3, guidance=1.5),
    )
    student = student_of(teacher, steps=2)
    objective = trained_by(Consistency(teacher), student)
    loss = objective.loss(student, batch)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(each.grad.isfinite().all() for each in student.parameters() if each.grad is not None)


def test_the_grid_grows_with_the_progress(base_stage, small_batch, monkeypatch):
    student = without_teacher(base_stage, 2)
    objective, counts = trained_by(Consistency(grid=(4, 64), growth=0.5), student), []
    draw = Segments.draw
    monkeypatch.setattr(
        Segments,
        "draw",
        lambda self, u, count, last: counts.append(count) or draw(self, u, count, last=last),
    )
    for share in (0, 0.25, 0.5, 0.9):
        objective.set_progress(share)
        objective.loss(student, small_batch)
        assert objective.course == f"the grid has {counts[-1]} steps"
    assert counts == [4, 16, 64, 64]


@pytest.mark.parametrize("steps", [1, 2, 90])
def test_the_grid_ends_where_the_teacher_was_trained_however_few_steps_it_samples_in(
    base_stage, small_batch, steps, monkeypatch
):
    drawn, draw = [], Segments.draw

    def recording(self, u, count, last):
        drawn.append(draw(self, torch.rand(2000, 2, generator=torch.Generator()), count, last=last))
        return draw(self, u, count, last=last)

    monkeypatch.setattr(Segments, "draw", recording)
    options = {"timesteps": "logit_normal", "logit_mean": -0.8, "logit_std": 0.5}
    for process, lowest in ((base_stage.process, 0), (_like(base_stage, **options), 17)):
        sampling = base_stage.sampling.changed(steps=steps)
        teacher = DiffusionStage(
            base_stage.network, process, base_stage.contract, sampling=sampling
        )
        student = student_of(teacher, steps=2)
        trained_by(Consistency(teacher, grid=(100, 100)), student).loss(student, small_batch)
        step = drawn.pop()
        assert step.t.min() == lowest
        assert step.t[step.s == -1].unique().tolist() == [lowest]


def _like(stage: DiffusionStage, **values) -> NoiseProcess:
    return NoiseProcess(stage.process.schedule, **values)


# ---- what teacher and student see ---------------------------------------------------------------


def test_teacher_and_student_see_the_same_noise_and_conditions(upsampler, batch, record):
    student = student_of(upsampler, steps=4)
    seen_by_teacher, seen_by_student = record(upsampler), record(student)
    objective = trained_by(Consistency(upsampler), student)
    objective.loss(student, batch)
    (x_t, t, signals), (_, s, _), (same_x_t, same_t, own) = *seen_by_teacher, *seen_by_student
    assert x_t.equal(same_x_t)
    assert t.equal(same_t)
    assert (s <= t).all()
    for name, each in signals.vectors.items():
        assert each.equal(own.vectors[name])
    image = "low_resolution"
    assert signals.channels[image].image.equal(own.channels[image].image)


def test_guidance_goes_inside_within_its_interval(base_stage, small_batch):
    settings = base_stage.sampling.changed(guidance=3.0, guidance_interval=(0.5, 2.0))
    guided = Teacher(base_stage.with_sampling(settings), Guidance(3.0, (0.5, 2.0)))
    t = torch.tensor([5, 50, 50, 99])
    x_t = small_batch.images
    signals = Signals(vectors={"labels": small_batch.conditions["labels"].clamp(min=0)})
    x0, plain = guided.x0(x_t, t, signals)
    assert [x0[i].equal(plain[i]) for i in range(4)] == [True, False, False, True]
    alone = guided.stage.predict(x_t, t, signals)
    without = guided.stage.predict(x_t, t, base_stage.conditions[0].absent(signals))
    own, other = (base_stage.process.x0(each, x_t, t) for each in (alone, without))
    expected = (other + 3 * (own - other)).clamp(-1, 1)
    torch.testing.assert_close(x0[1:3], expected[1:3], rtol=1e-4, atol=1e-5)


# ---- meters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_steps", [2, 80])
def test_students_are_measured_against_their_teacher_in_many_steps_whatever_its_own_are(
    base_stage, small_batch, own_steps
):
    def drawn(stage: DiffusionStage, **settings) -> Tensor:
        stage = stage.with_sampling(stage.sampling.changed(**settings))
        return draw_samples(stage, small_batch, precision="fp32")

    teacher = base_stage.with_sampling(base_stage.sampling.changed(steps=own_steps, reuse=2))
    student = student_of(teacher, steps=3)
    objective = trained_by(Consistency(teacher), student)
    samples = draw_samples(student, small_batch, precision="fp32")
    meters = objective.meters(student, small_batch, samples, "fp32")
    assert list(meters) == [f"distance_to_teacher_{n}" for n in ("student", "ddim", "unipc")]
    own, ddim, unipc = meters.values()
    assert own == pytest.approx(ddim)
    assert min(ddim, unipc) > 0
    many = drawn(teacher, steps=max(64, own_steps), reuse=1)
    assert objective.meters(student, small_batch, many, "fp32")["distance_to_teacher_student"] == 0
    distances = [
        float((drawn(base_stage, sampler="unipc", steps=3, config=config) - many).square().mean())
        for config in UNIPC_CONFIGS
    ]
    assert unipc == pytest.approx(min(distances) ** 0.5 * 127.5, rel=1e-4)
    assert Consistency().meters(student, small_batch, samples, "fp32") == {}


def test_a_teacher_of_few_timesteps_takes_all_of_them(base_stage):
    process = NoiseProcess(NoiseSchedule(train_steps=10))
    short = DiffusionStage(
        base_stage.network, process, base_stage.contract, sampling=SamplingSettings(steps=2)
    )
    assert Teacher(short, Guidance()).many_steps == 10


def test_a_guided_teacher_is_measured_in_as_many_calls_as_its_student(
    base_stage, small_batch, record
):
    teacher = base_stage.with_sampling(base_stage.sampling.changed(steps=32, guidance=2.0))
    calls = record(teacher)
    student = student_of(teacher, steps=4)
    objective = trained_by(Consistency(teacher), student)
    objective.meters(student, small_batch, small_batch.images, "fp32")
    pictures = [len(x_t) / len(small_batch) for x_t, _, _ in calls]
    assert sum(pictures) == 2 * 64 + (1 + len(UNIPC_CONFIGS)) * 4


@pytest.mark.parametrize(
    ("guidance", "calls", "steps"),
    [
        (Guidance(), 4, 4),
        (Guidance(2.0), 4, 2),
        (Guidance(2.0), 5, 2),
        (Guidance(2.0), 1, 1),
        (Guidance(0.0), 4, 4),  # without conditions it takes one call
        (Guidance(2.0, (0.0, 1.0)), 4, 3),  # one of the three timesteps is guided
    ],
)
def test_steps_of_a_teacher_fit_into_calls_of_the_network(base_stage, guidance, calls, steps):
    assert Teacher(base_stage, guidance).steps_within(calls) == steps


# ---- a toy --------------------------------------------------------------------------------------

SCHEDULE = NoiseSchedule()
STD = 0.1


class Toy(nn.Module):
    """The best prediction for data around two opposite points, and a correction to be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.correction = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 1))
        nn.init.zeros_(self.correction[-1].weight)
        nn.init.zeros_(self.correction[-1].bias)

    def forward(self, x_t: Tensor, t: Tensor, signals: object) -> Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        variance = alpha**2 * STD**2 + sigma**2
        mean = 0.5 * torch.tanh(x_t * 0.5 * alpha / variance)
        x0 = mean + alpha * STD**2 / variance * (x_t - alpha * mean)
        rate = (alpha / sigma).log().expand_as(x_t) / 4
        time = t.view(-1, 1, 1, 1).expand_as(x_t) / SCHEDULE.train_steps
        seen = torch.stack([x_t, rate, time], dim=-1)
        return x0 + sigma * self.correction(seen).squeeze(-1)


def test_a_trained_student_is_nearer_to_its_teacher_than_the_teacher_in_as_many_steps():
    torch.manual_seed(0)
    teacher = DiffusionStage(
        Toy(),
        NoiseProcess(SCHEDULE, prediction="x0"),
        Contract(Space(size_px=8, channels=1)),
        sampling=SamplingSettings(steps=200, threshold="none"),
    )
    student = student_of(teacher, steps=2)
    objective = trained_by(Consistency(teacher), student)
    optimiser = torch.optim.Adam(student.parameters(), 4e-3)
    generator, steps = torch.Generator().manual_seed(0), 250
    for number in range(steps):
        signs = torch.randint(0, 2, (16, 1, 8, 8), generator=generator) - 0.5
        images = signs + STD * torch.randn(signs.shape, generator=generator)
        objective.set_progress(number / steps)
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1, 2 * (1 - number / steps))
        seeds = tuple(range(16 * number, 16 * number + 16))
        objective.loss(student, Batch(images=images, seeds=seeds)).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    seeds = list(range(8))
    aim = teacher.run(seeds)
    in_two = teacher.with_sampling(teacher.sampling.changed(steps=2)).run(seeds)
    distances = [
        float((each - aim).square().mean().sqrt()) for each in (student.run(seeds), in_two)
    ]
    assert distances[0] < 0.8 * distances[1]


# ---- what is refused ----------------------------------------------------------------------------


def test_a_stage_that_is_no_student_is_refused(base_stage):
    with pytest.raises(ContractError, match="consistency trains students; set the number of steps"):
        make_objective("consistency").check(base_stage)


def test_denoising_refuses_a_student(base_stage):
    with pytest.raises(ContractError, match="cannot train a student of teacher, 4 steps; use"):
        Denoising().check(student_of(base_stage, steps=4))


def test_a_teacher_that_takes_other_conditions_is_refused(base_stage, colouriser, relabelled):
    student = student_of(base_stage, steps=4)
    expected = r"takes other conditions than the student: labels, luminance and labels\."
    with pytest.raises(ContractError, match=expected):
        Consistency(colouriser).check(student)
    other = relabelled(base_stage, {"animal": ["cat", "emu"], "style": ["noto", "twemoji"]})
    with pytest.raises(ContractError, match=r"another condition than the student: labels\.fields"):
        Consistency(other).check(student)


def test_a_teacher_of_another_schedule_or_size_is_refused(base_stage, upsampler):
    student = student_of(base_stage, steps=4)
    schedule = NoiseSchedule(train_steps=100, shift=0.5)
    contract = Contract(Space(size_px=32), (student.conditions[0],))
    for process, other, expected in (
        (NoiseProcess(schedule), base_stage.contract, "another schedule than the student: shift"),
        (base_stage.process, contract, "another space than the student: size_px"),
    ):
        teacher = DiffusionStage(base_stage.network, process, other)
        with pytest.raises(ContractError, match=expected):
            Consistency(teacher).check(student)


def test_a_student_or_a_regression_cannot_teach(base_stage):
    student = student_of(base_stage, steps=4, name="emoji-1024/base")
    expected = "itself a student of emoji-1024/base, 4 steps and cannot teach another; take its"
    with pytest.raises(ContractError, match=expected):
        student_of(student, steps=2)
    process = NoiseProcess(base_stage.process.schedule, prediction="x0", timesteps="last")
    regression = DiffusionStage(base_stage.network, process, base_stage.contract)
    with pytest.raises(ContractError, match="makes its images in 1 step already"):
        student_of(regression, steps=1)


def test_a_student_without_its_teacher_is_refused_and_the_reverse(base_stage):
    with pytest.raises(ContractError, match="but training has no teacher"):
        Consistency().begin(student_of(base_stage, steps=4), CPU)
    with pytest.raises(ContractError, match="a consistency model, 4 steps, but training has a"):
        Consistency(base_stage).begin(without_teacher(base_stage, 4), CPU)


@pytest.mark.parametrize("grid", [(64, 32), (0, 4), (1.5, 2), (1, 2, 3), (1,), 5, "12", None])
def test_a_grid_that_is_no_two_whole_numbers_is_refused(grid):
    words = f"grid must be two whole numbers 1 <= first <= last, got {grid!r}."
    with pytest.raises(ContractError, match=f"^{re.escape(words)}$"):
        Consistency(grid=grid)


def test_a_grid_becomes_plain_numbers():
    grid = Consistency(grid=[np.int64(4), torch.tensor(8)]).grid  # pyright: ignore
    assert grid == (4, 8)
    assert [type(each) for each in grid] == [int, int]


@pytest.mark.parametrize("growth", [0.0, 1.5, math.nan, "a", True])
def test_a_growth_that_is_no_share_is_refused(growth):
    with pytest.raises(ContractError, match=r"^growth must be"):
        Consistency(growth=growth)


def test_labels_are_dropped_from_student_and_teacher_alike(base_stage, small_batch, record):
    contract = base_stage.contract.changed(
        lambda each: replace(each, drop=1.0) if isinstance(each, Labels) else each
    )
    teacher = DiffusionStage(base_stage.network, base_stage.process, contract)
    student = student_of(teacher, steps=4)
    calls = record(student), record(teacher)
    trained_by(Consistency(teacher), student).loss(student, small_batch)
    assert all((signals.vectors["labels"] == -1).all() for made in calls for _, _, signals in made)
