"""What is said of a student that will be no faster than its teacher, or is led astray."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cascade.building.students import astray_warnings, slow_student_warnings
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.segments import Segments
from cascade.diffusion_stage import DiffusionStage
from cascade.sampling.student import Student
from cascade.training.objectives.teacher import network_calls, whole_network_calls

FAST: list[str] = []


def warned(
    stage: DiffusionStage, own_steps: int, own_guidance: float = 1.0, **settings: object
) -> list[str]:
    """The warnings about a student of `own_steps` of a teacher with these settings."""
    teacher = stage.with_sampling(stage.sampling.changed(**settings))
    known = Student(steps=own_steps, teacher="base")
    contract = replace(stage.contract, student=known)
    own = replace(known.fitted(stage.sampling), guidance=own_guidance)
    student = DiffusionStage(stage.network, stage.process, contract, sampling=own)
    return slow_student_warnings(student, teacher)


def line(own: str, calls: str, verb: str) -> list[str]:
    return [
        f"the student will call its network {own} for an image and its teacher calls it {calls}: "
        f"it {verb} be no faster; fewer steps would be."
    ]


def test_guided_steps_of_both_count_twice(base_stage):
    assert warned(base_stage, 4, steps=4) == line("4 times", "4 times", "will")
    assert warned(base_stage, 4, steps=5) == FAST
    assert warned(base_stage, 4, steps=4, guidance=2.0) == FAST
    assert warned(base_stage, 4, 2.0, steps=8) == line("8 times", "8 times", "will")
    assert warned(base_stage, 4, 2.0, steps=9) == FAST


def test_a_teacher_that_reuses_features_may_be_faster_than_its_calls(base_stage):
    some = "8 times, 4 of them whole (reuse 2)"
    assert warned(base_stage, 3, steps=8, reuse=2) == FAST
    assert warned(base_stage, 4, steps=8, reuse=2) == line("4 times", some, "may")
    assert warned(base_stage, 8, steps=8, reuse=2) == line("8 times", some, "will")


@pytest.mark.parametrize(("reuse", "whole"), [(1, 14), (2, 8), (3, 6), (7, 2)])
def test_whole_calls_are_those_that_compute_all_features(base_stage, reuse, whole):
    settings = base_stage.sampling.changed(steps=7, guidance=2.0, reuse=reuse)
    assert network_calls(base_stage, settings) == 14
    assert whole_network_calls(base_stage, settings) == whole


@pytest.mark.parametrize("steps", [1, 4, 32, 64])
def test_students_that_draw_where_their_teacher_learned_nothing_are_reported(base_stage, steps):
    process = NoiseProcess(base_stage.process.schedule, timesteps="logit_normal")
    teacher = DiffusionStage(base_stage.network, process, base_stage.contract)
    contract = replace(teacher.contract, student=Student(steps=steps, teacher="base"))
    student = DiffusionStage(teacher.network, process, contract)
    last = process.lowest_reliable_timestep
    u = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))

    def lowest(count: int) -> int:
        return int(Segments(process.schedule, count).draw(u, 1280, last=last).t.min())

    lines = astray_warnings(student, teacher)
    assert bool(lines) == (lowest(steps) < last) == (steps > 4)
    if lines:
        most = int(lines[0].split("; ")[1].split()[0])
        assert lowest(most) >= last > lowest(most + 1)
        assert (
            f"from {lowest(steps)} on, but its teacher hardly learned at any below {last},"
            in lines[0]
        )
    assert astray_warnings(student, base_stage) == []  # of uniform timesteps
