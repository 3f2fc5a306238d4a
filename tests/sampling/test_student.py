"""Students: the settings that they take, what they refuse, and how they sample."""

from __future__ import annotations

import pytest
import torch

from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.errors import ContractError
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.student import Student
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Known, StartFrom
from cascade.stage import Run
from cascade.stage_kinds import load_stage
from cascade.training.students import student_of

OWN = Student(steps=4, guidance=1.5, teacher="emoji-1024/base", teacher_sha256="ab")


# ---- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 8}, r"trained for steps 4 and no others, got 8; for other numbers take its "
         r"teacher emoji-1024/base\."),
        ({"sampler": "unipc"}, "the sampler ddim, as it was trained, got unipc"),
        ({"sampler": "predictor-corrector"}, "as it was trained, got predictor-corrector"),
        ({"sampler": "langevin", "corrections": 3}, r"ddim, as it was trained, got langevin\.$"),
        ({"eta": 1.0}, "with eta 0.0, as it was trained, got 1.0"),
        ({"timestep_shift": 2.0}, "with timestep_shift 1.0, as it was trained, got 2.0"),
        ({"reuse": 2}, "samples with reuse 1, as it was trained, got 2"),
        ({"guidance": 2.0}, "guidance 1.5 inside, got guidance 2 on top; use guidance 1"),
    ],
)  # fmt: skip
def test_settings_that_training_has_fixed_are_refused(changes, message):
    settings = OWN.fitted(SamplingSettings())
    OWN.check(settings)
    with pytest.raises(ContractError, match=message):
        OWN.check(settings.changed(**changes))


def test_fitting_keeps_what_a_student_leaves_open():
    other = SamplingSettings(
        sampler="ddpm", steps=50, guidance=2.0, guidance_interval=(0.1, 2.0),
        threshold="dynamic", augmentation_level=0.1, reuse=3, options={"variance": "large"},
    )  # fmt: skip
    expected = SamplingSettings(steps=4, threshold="dynamic", augmentation_level=0.1)
    assert OWN.fitted(other) == expected


def test_a_student_without_guidance_inside_may_be_guided():
    student = Student(steps=4, teacher="base")
    student.check(student.fitted(SamplingSettings()).changed(guidance=2.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 4, "guidance": 1.5}, "guidance 1.5 inside a student needs a teacher"),
        ({"steps": 4, "guidance": -3, "teacher": "base"}, "must be at least 0, got -3"),
        ({"steps": 4, "guidance_interval": (2.0, 1.0)}, "guidance_interval must be"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Student(**values)


def test_a_student_of_a_teacher_that_shares_features_shares_none(base_stage):
    teacher = base_stage.with_sampling(base_stage.sampling.changed(reuse=3))
    student = student_of(teacher, steps=2)
    assert student.sampling.reuse == 1
    with pytest.raises(ContractError, match="with reuse 1, as it was trained, got 2"):
        student.with_sampling(student.sampling.changed(reuse=2))


def test_more_steps_than_timesteps_are_refused(base_stage):
    with pytest.raises(ContractError, match="steps must be from 1 to 100"):
        student_of(base_stage, steps=101)


# ---- words and files ----------------------------------------------------------------------------


def test_its_text_names_teacher_steps_and_guidance():
    assert OWN.text == "student of emoji-1024/base, 4 steps, guidance 1.5 inside"
    assert Student(steps=1).text == "consistency model, 1 step"


def test_it_is_saved_with_the_stage(base_stage, tmp_path):
    student = student_of(base_stage, steps=3, name="emoji-1024/base")
    student.save_pretrained(tmp_path / "stage")
    loaded = load_stage(tmp_path / "stage")
    assert loaded.contract.student == student.contract.student
    assert loaded.contract.student.teacher_sha256
    assert loaded.sampling.steps == 3
    with pytest.raises(ContractError, match="trained for steps 3 and no others, got 4"):
        loaded.with_sampling(loaded.sampling.changed(steps=4))
    assert student.summary().predicts == "v; student of emoji-1024/base, 3 steps"


@pytest.mark.parametrize("student", [None, OWN, Student(steps=2)])
def test_a_contract_with_a_student_survives_json(base_stage, student):
    contract = Contract(base_stage.space, base_stage.conditions, student)
    values = contract.to_dict()
    assert ("student" in values) == (student is not None)
    assert Contract.from_dict(values) == contract
    assert contract.changed(lambda each: each) == contract


# ---- sampling -----------------------------------------------------------------------------------


def test_a_student_walks_as_ddim_in_as_many_steps(base_stage):
    student = student_of(base_stage, steps=3)
    ddim = base_stage.with_sampling(base_stage.sampling.changed(sampler="ddim", steps=3))
    assert student.run([0, 1]).equal(ddim.run([0, 1]))
    assert student.run([1]).equal(student.run([0, 1])[1:]) or torch.allclose(
        student.run([1]), student.run([0, 1])[1:], atol=1e-5
    )


def test_a_student_takes_tiles_known_pixels_starting_images_and_temperature(upsampler):
    student = student_of(upsampler, steps=3)
    small = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    inputs = Inputs()
    whole = student.run([0], inputs, small)
    tiled = student.run([0], inputs, small, Run(tiles=Tiles(32)))
    assert tiled.shape == whole.shape == (1, 3, 48, 48)
    mask = torch.zeros(48, 48, dtype=torch.bool)
    mask[:20] = True
    known = Known(torch.full((1, 3, 48, 48), 0.25), mask)
    run = Run(hooks=Hooks(known=known, start_from=StartFrom(whole, 0.4)))
    assert (student.run([0], inputs, small, run)[:, :, :20] == 0.25).all()
    cool = Run(settings=student.sampling.changed(temperature=0.5))
    assert not student.run([0], inputs, small, cool).equal(whole)
