"""A trained stage, or the run that trained it, used at once, without a pipeline."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from cascade.chain import ONLY_STAGE
from cascade.pipeline import CascadePipeline
from cascade.stage_kinds import load_stage
from cascade.sweeping.applying import apply_settings


@pytest.mark.parametrize("inner", ["", "stage"])
def test_a_stage_is_a_pipeline_of_one(trained, inner, caplog):
    caplog.set_level("INFO", logger="cascade")
    pipeline = CascadePipeline.from_pretrained(trained.base / inner)
    assert pipeline.stages.names == [ONLY_STAGE]
    assert f"taking the stage in {trained.base / 'stage'}" in caplog.text
    stage = load_stage(trained.base / "stage")
    chained = CascadePipeline.from_stages({ONLY_STAGE: stage})
    images = pipeline(num_images=2, seed=3, output_type="pt").images
    assert torch.equal(images, chained(num_images=2, seed=3, output_type="pt").images)


def test_its_other_averages_are_named(trained, tmp_path, caplog):
    shutil.copytree(trained.base / "stage", tmp_path / "run" / "stage")
    shutil.copytree(trained.base / "stage", tmp_path / "run" / "stage-0.080")
    caplog.set_level("INFO", logger="cascade")
    CascadePipeline.from_pretrained(tmp_path / "run", dtype=torch.bfloat16)
    assert "the run also has stage-0.080" in caplog.text


def test_the_commands_take_a_run(command, trained, pictures, tmp_path):
    done = command("generate", trained.base, "-n", 2, "--set", "stage.steps=2", "-o", tmp_path)
    assert (done.code, done.err.count("Error")) == (0, 0)
    assert done.out == f"2 images and grid.png in {tmp_path}\n"
    picture = pictures / "red" / "0.png"
    done = command("upscale", picture, "-o", tmp_path / "x2.png", "--model", trained.upsampler)
    assert done.code == 0
    assert (tmp_path / "x2.png").is_file()
    figures = ["--json", "--extractor", "lite0"]
    done = command("evaluate", trained.upsampler, "--data", pictures, "-n", 2, *figures)
    assert done.code == 0
    assert json.loads(done.out)["pipeline"] == str(trained.upsampler)


def test_settings_that_a_sweep_found_become_those_of_the_stage(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.base / "stage", run / "stage")
    settings = load_stage(run / "stage").sampling.changed(steps=7)
    assert apply_settings(run, {ONLY_STAGE: settings}) == [run / "stage" / "stage.json"]
    assert CascadePipeline.from_pretrained(run).stages.first.sampling.steps == 7


def test_what_is_neither_is_refused_in_one_line(command, trained, pictures, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    done = command("generate", tmp_path / "run", "-o", tmp_path)
    assert done.code == 1
    assert "holds neither a pipeline nor a trained stage" in done.err
    assert done.err.count("\n") == 1
    done = command("evaluate", trained.base, "--data", pictures, "--card")
    assert done.code == 1
    assert "has no model card; chain it first" in done.err
