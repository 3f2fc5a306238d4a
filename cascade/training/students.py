"""Makes the student of a trained stage, with the teacher's weights to start from."""

from __future__ import annotations

import copy
from dataclasses import replace

from cascade.diffusion_stage import DiffusionStage
from cascade.sampling.student import Student
from cascade.saving.components import weights_digest
from cascade.training.objectives.teacher import check_can_teach


def student_of(teacher: DiffusionStage, *, steps: int, name: str = "teacher") -> DiffusionStage:
    """Make a student, which `Consistency(teacher)` then trains.

    It learns the guidance with which the teacher samples by default.

    Args:
        teacher: a trained stage, whose weights are copied.
        steps: number of steps in which the student samples, from 1 to the schedule's length.
        name: name of the teacher, for the student's model card.

    Raises:
        ContractError: if the stage cannot teach, or the number of steps is out of range.
    """
    check_can_teach(teacher)
    sampling = teacher.sampling
    student = Student(
        steps=steps,
        guidance=sampling.guidance,
        guidance_interval=sampling.guidance_interval,
        teacher=name,
        teacher_sha256=weights_digest(teacher),
    )
    return DiffusionStage(
        copy.deepcopy(teacher.network),
        teacher.process,
        replace(teacher.contract, student=student),
        sampling=student.fitted(sampling),
    )
