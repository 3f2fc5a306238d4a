"""`cascade distil`: a student of a run, in a cascade, resumed, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from cascade.stage_kinds import load_stage

SHORT = (
    "train.images=32",
    "train.batch_size=16",
    "train.warmup_images=16",
    "train.sample_every_images=32",
    "train.sample_count=4",
    "train.checkpoint_every_images=16",
    "train.trackers=[]",
)
DEPTH = "network.depth=1"  # as `trained` has it


def weights(run: Path) -> torch.Tensor:
    return torch.cat([each.flatten() for each in load_stage(run / "stage").parameters()])


@pytest.fixture(scope="module")
def student(command, trained, tmp_path_factory) -> Path:
    """The run of a student of two steps of the trained base stage."""
    out = tmp_path_factory.mktemp("students") / "base-2"
    done = command("distil", trained.base, "--steps", 2, *SHORT, "--out", out)
    assert done.code == 0, done.err
    return out


def test_a_run_leaves_a_student_that_names_and_hashes_its_teacher(student, trained):
    stage = load_stage(student / "stage")
    own = stage.contract.student
    assert (own.steps, own.guidance, own.teacher) == (2, 1.5, str(trained.base))
    assert len(own.teacher_sha256) == 64
    assert (stage.sampling.steps, stage.sampling.guidance) == (2, 1.0)
    assert not weights(student).equal(weights(trained.base))
    checkpoint = json.loads((student / "checkpoints" / "000000000032" / "state.json").read_text())
    assert checkpoint["about"]["stage"]["contract"]["student"]["teacher_sha256"]
    meters = json.loads((student / "log.jsonl").read_text().splitlines()[-1])
    assert meters["distance_to_teacher_student"] > 0
    assert "loss_at_log_snr_+1" not in meters
    assert "student of" in (student / "report.html").read_text()


def test_the_same_command_resumes_exactly(command, student, trained, tmp_path, caplog):
    line = ["distill", trained.base, "--steps", 2, *SHORT, "--out", tmp_path / "run"]
    assert command(*line, "train.images=16").code == 0
    done = command(*line)
    assert done.code == 0
    assert "at image 16 of 32" in caplog.text
    assert weights(tmp_path / "run").equal(weights(student))


def test_a_student_of_as_many_calls_as_its_teacher_is_called_no_faster(
    command, trained, tmp_path, caplog
):
    """The teacher takes 20 guided steps, which are 40 calls."""
    values = [*SHORT, "train.images=16", "train.sample_every_images=0"]
    expected = "the student will call its network 40 times for an image and its teacher calls it 40"
    for steps in (39, 40):
        line = ["distil", trained.base, "--steps", steps, *values, "-o", tmp_path / str(steps)]
        assert command(*line).code == 0
        assert (expected in caplog.text) == (steps == 40)


def test_another_grid_or_another_number_of_steps_is_another_run(command, student, trained):
    for steps, change, expected in (
        (2, "student.grid=[8,16]", "student.grid=[64, 1280] (now [8, 16])"),
        (3, "student.growth=0.5", "student.steps=2 (now 3)"),
    ):
        done = command("distil", trained.base, "--steps", steps, *SHORT, change, "-o", student)
        assert done.code == 1
        assert expected in done.err.splitlines()[-1]


def test_a_student_takes_its_teacher_s_place_in_a_cascade(command, student, trained, tmp_path):
    joined = ["--stage", f"base={student}", "--stage", f"upsampler={trained.upsampler}"]
    done = command("chain", "tiny-32", *joined, "--out", tmp_path / "pipeline")
    assert done.code == 0, done.err
    card = (tmp_path / "pipeline" / "README.md").read_text()
    assert f"student of {trained.base}, 2 steps, guidance 1.5 inside | ddim, 2 steps" in card
    done = command("generate", tmp_path / "pipeline", "-n", 1, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    done = command("generate", tmp_path / "pipeline", "--steps", "8,4", "--out", tmp_path / "more")
    assert done.code == 1
    assert "trained for steps 2 and no others, got 8" in done.err
    done = command("generate", tmp_path / "pipeline", "--guidance", "3,1", "--out", tmp_path / "m")
    assert "guidance 1.5 inside, got guidance 3 on top; use guidance 1" in done.err
    assert len(done.err.splitlines()) == 1
    done = command("generate", tmp_path / "pipeline", "--set", "base.reuse=2", "-o", tmp_path / "r")
    assert done.code == 1
    assert "samples with reuse 1, as it was trained, got 2" in done.err
    assert len(done.err.splitlines()) == 1


def test_settings_of_the_recipe_that_a_student_cannot_use_are_named(
    command, student, trained, tmp_path, caplog
):
    recipe = tmp_path / "pipeline.yaml"
    recipe.write_text(
        "kind: pipeline\nname: mine\nstages:\n"
        "  - {name: base, recipe: tiny-16, sampling: {steps: 30, threshold: dynamic}}\n"
    )
    done = command("chain", recipe, "--stage", f"base={student}", "--out", tmp_path / "pipeline")
    assert done.code == 0, done.err
    assert f"base is a student of {trained.base}, 2 steps, guidance" in done.err + caplog.text
    assert "steps=2, which was 30." in caplog.text
    sampling = load_stage(tmp_path / "pipeline" / "stages" / "base").sampling
    assert (sampling.steps, sampling.threshold) == (2, "dynamic")


def test_a_stage_of_an_own_pipeline_can_teach(command, trained, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.pipeline, "mine")
    values = [*SHORT, "train.sample_every_images=0", f"data.path={pictures}"]
    values += ["network.channels=[16,32]"]  # as `trained` has it
    done = command("distil", "mine/upsampler", "--steps", 1, *values)
    assert done.code == 0, done.err
    own = load_stage(tmp_path / "runs" / "tiny-16-to-32-1" / "stage").contract.student
    assert (own.steps, own.teacher) == (1, "mine/upsampler")


def test_consistency_training_needs_no_teacher(command, pictures, tmp_path):
    values = [*SHORT, f"data.path={pictures}", "train.objective=consistency", "student.steps=2"]
    done = command("train", "tiny-16", *values, "sampling.steps=2", "sampling.guidance=1",
                   "--out", tmp_path / "run")  # fmt: skip
    assert done.code == 0, done.err
    assert (
        load_stage(tmp_path / "run" / "stage").contract.student.text == "consistency model, 2 steps"
    )


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        (
            "nothing/here",
            "no trained stage in nothing/here; train it first, or name another run, or ",
        ),
        ("emoji-1024", "emoji-1024 is a pipeline; name one of its stages: emoji-1024/base, "),
        ("emoji-1024/bass", "no stage 'bass' in emoji-1024: did you mean 'base'?"),
    ],
)
def test_a_teacher_that_is_not_there_is_one_line(command, tmp_path, teacher, expected):
    done = command("distil", teacher, "--steps", 4, "--out", tmp_path / "run")
    assert done.code == 1
    assert done.err.startswith(f"cascade: {expected}")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("steps", "values", "expected"),
    [
        (2000, (), "key 'student.steps': steps must be from 1 to 1000"),
        (4, ("data.path=nowhere",), "nowhere"),
        (4, ("condition.labels=null",), "the teacher takes other conditions than the student"),
        (4, ("student.grid=[64,8]",), "key 'student.grid': must be two numbers, the smaller one"),
        (
            4,
            ("student.teacher=null", "student.guidance=1"),
            "key 'student.teacher': the student was asked for with ",
        ),
        (4, ("train.objective=denoising",), "key 'train.objective': denoising cannot train a"),
        (
            4,
            ("student.steps=7",),
            "key 'student.steps': the student was asked for with 4, got 7; leave the key out.",
        ),
        (4, ("student=null",), "key 'student.steps': the student was asked for with 4, got null"),
        (4, ("student.guidance=-3",), "key 'student.guidance': guidance inside a student must be"),
        (4, ("student.step=4",), "unknown key 'student.step'; did you mean 'student.steps'"),
        (4, ("sampling.steps=9",), "trained for steps 4 and no others, got 9"),
        (4, ("sampling.reuse=2",), "samples with reuse 1, as it was trained, got 2"),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_line(
    command, trained, tmp_path, steps, values, expected
):
    done = command("distil", trained.base, "--steps", steps, *values, "--out", tmp_path / "run")
    assert done.code in (1, 2)
    assert expected in done.err
    assert len(done.err.splitlines()) == 1


def test_a_student_cannot_teach(command, student, tmp_path):
    done = command("distil", student, "--steps", 1, "--out", tmp_path / "run")
    assert done.code == 1
    assert "this stage is itself a student of" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_class_that_the_teacher_does_not_know_is_named(command, trained, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    shutil.copytree(tmp_path / "data" / "red", tmp_path / "data" / "violet")
    line = ["distil", trained.base, "--steps", 2, f"data.path={tmp_path / 'data'}"]
    done = command(*line, "--out", tmp_path / "run")
    assert done.code == 1
    assert "the images have class 'violet', which the teacher does not know" in done.err


def test_a_stage_folder_without_a_recipe_needs_one(command, trained, pictures, tmp_path):
    shutil.copytree(trained.base / "stage", tmp_path / "stage")
    line = ["distil", tmp_path / "stage", "--steps", 2, *SHORT, f"data.path={pictures}"]
    done = command(*line, "--out", tmp_path / "run")
    assert done.code == 2
    assert "is not known, so its data is not either; give the recipe" in done.err
    done = command(*line, "train.sample_every_images=0", "--stage-recipe", "tiny-16", DEPTH,
                   "--out", tmp_path / "run")  # fmt: skip
    assert done.code == 0, done.err


def test_steps_are_at_least_one(command, trained):
    done = command("distil", trained.base, "--steps", 0)
    assert done.code == 2
    assert "--steps" in done.err
