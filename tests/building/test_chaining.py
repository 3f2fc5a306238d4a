"""Chaining trained stages into a saved pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cascade.building.pipelines import chain_pipeline
from cascade.building.trained import find_stage
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, OutputError, RecipeError, WeightsError
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_any_recipe
from cascade.restoration.expected_error import ErrorCurve, ExpectedError, model_digest
from cascade.restoration.upscaling import Upscaling
from cascade.stage import Stage
from cascade.stage_kinds import load_stage

CHAIN = find_recipe("tiny-32", "pipelines")


def chained(trained, out: Path, *, recipe: Path = CHAIN, **options) -> CascadePipeline:
    runs = {"base": trained.base, "upsampler": trained.upsampler}
    return chain_pipeline(recipe, runs, out, **options)


def test_a_trained_stage_is_found_in_its_run_or_as_itself(trained, tmp_path):
    assert find_stage(trained.base) == trained.base / "stage"
    assert find_stage(trained.base / "stage") == trained.base / "stage"
    with pytest.raises(WeightsError, match=r"no trained stage in .*; train it first"):
        find_stage(tmp_path)


def test_a_pipeline_in_place_of_a_stage_is_told_which_stages_it_has(trained, tmp_path):
    chained(trained, tmp_path / "out")
    with pytest.raises(WeightsError, match=r"out is a pipeline; .*out/base, .*out/upsampler\."):
        find_stage(tmp_path / "out")
    assert find_stage(tmp_path / "out" / "base") == tmp_path / "out" / "stages" / "base"


def test_a_bundled_pipeline_of_one_stage_is_found_by_its_name():
    assert load_stage(find_stage("photo-x4")).space.size == (256, 256)


def test_chaining_joins_the_trained_weights_and_keeps_the_recipe(trained, tmp_path):
    pipeline = chained(trained, tmp_path / "out")
    loaded = CascadePipeline.from_pretrained(tmp_path / "out")
    for name, run in (("base", trained.base), ("upsampler", trained.upsampler)):
        stage = DiffusionStage.from_pretrained(run / "stage")
        for key, tensor in stage.state_dict().items():
            assert loaded.stages[name].state_dict()[key].equal(tensor)
            assert pipeline.stages[name].state_dict()[key].equal(tensor)
        assert loaded.stages[name].sampling == stage.sampling
    assert (tmp_path / "out" / "pipeline.yaml").read_text() == CHAIN.read_text()
    assert load_any_recipe(str(tmp_path / "out")).name == "tiny-32"


def test_a_pipeline_s_own_sampling_is_saved_into_its_stages(trained, tmp_path):
    text = CHAIN.read_text().replace(
        "recipe: tiny-16\n", "recipe: tiny-16\n    sampling: {steps: 7, guidance: 2.5, eta: 0.5}\n"
    )
    (tmp_path / "pipeline.yaml").write_text(text)
    chained(trained, tmp_path / "out", recipe=tmp_path / "pipeline.yaml")
    sampling = CascadePipeline.from_pretrained(tmp_path / "out").stages["base"].sampling
    trained_with = DiffusionStage.from_pretrained(trained.base / "stage").sampling
    assert sampling == trained_with.changed(steps=7, guidance=2.5, eta=0.5)


def test_runs_are_looked_for_by_their_recipe_s_name(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.base / "stage", "runs/tiny-16/stage")
    shutil.copytree(trained.upsampler / "stage", "runs/tiny-16-to-32/stage")
    chain_pipeline(CHAIN, {}, Path("out"))
    assert (tmp_path / "out" / "model_index.json").is_file()


ALONE = """kind: pipeline
name: larger
description: one stage
stages:
  - {name: upsampler, recipe: tiny-16-to-32}
"""


def test_what_was_measured_of_a_run_goes_with_its_stage(trained, tmp_path, caplog):
    recipe = tmp_path / "pipeline.yaml"
    recipe.write_text(ALONE)
    upsampler = tmp_path / "upsampler"
    shutil.copytree(trained.upsampler / "stage", upsampler / "stage")
    measured = expected_error_of(load_stage(upsampler / "stage"))
    measured.save(upsampler)
    runs = [upsampler, upsampler / "stage", tmp_path / "out0"]  # the last one is a pipeline
    for number, run in enumerate(runs):
        out = tmp_path / f"out{number}"
        chain_pipeline(recipe, {"upsampler": run}, out)
        stages = CascadePipeline.from_pretrained(out).stages
        assert stages.expected_error == measured
        assert measured.holds_for([stages["upsampler"]], 2, Upscaling())
    both = {"base": trained.base, "upsampler": upsampler}
    assert chain_pipeline(CHAIN, both, tmp_path / "both").stages.expected_error == measured
    assert caplog.text == ""


def test_curves_of_several_models_are_left_out_with_a_warning(trained, tmp_path, caplog):
    runs = {}
    for name, run in (("base", trained.base), ("upsampler", trained.upsampler)):
        runs[name] = tmp_path / name
        shutil.copytree(run / "stage", runs[name] / "stage")
        expected_error_of(load_stage(run / "stage")).save(runs[name])
    assert chain_pipeline(CHAIN, runs, tmp_path / "out").stages.expected_error is None
    assert not (tmp_path / "out" / "doubt.json").exists()
    assert caplog.text.count("expected errors of 2 models are left out") == 1


def expected_error_of(stage: Stage) -> ExpectedError:
    curve = ErrorCurve(deviations=(0.0, 0.1), errors=(0.0, 0.2), correlation=0.5)
    return ExpectedError(seeds=2, pictures=40, model=model_digest([stage]), curves=(curve,))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_dtype_is_written(trained, tmp_path, dtype):
    chained(trained, tmp_path / "out", dtype=dtype)
    stages = CascadePipeline.from_pretrained(tmp_path / "out").stages
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    plain = CascadePipeline.from_pretrained(trained.pipeline).stages
    for name, parameter in stages.named_parameters():
        assert parameter.equal(plain.get_parameter(name).to(kind).float())


def test_a_card_is_taken_from_a_file(trained, tmp_path):
    (tmp_path / "card.md").write_text("# Größe\n", encoding="utf-8")
    chained(trained, tmp_path / "out", card=tmp_path / "card.md")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "# Größe\n"


def test_what_cannot_be_chained_is_one_clear_line_and_leaves_nothing(trained, tmp_path):
    runs = {"base": trained.base, "upsampler": trained.upsampler}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("x")
    cases = [
        (runs | {"bsae": trained.base}, {}, RecipeError, "no stage 'bsae'; did you mean 'base'"),
        (runs | {"base": tmp_path / "no"}, {}, WeightsError, "no trained stage in"),
        (runs, {"dtype": "fp8"}, RecipeError, "fp32, bf16, fp16, got 'fp8'"),
        (runs, {"card": tmp_path / "no.md"}, RecipeError, r"no\.md: cannot be read"),
        (runs | {"base": trained.upsampler}, {}, CascadeError, "gives size_px 32x32, .* 16x16"),
        (runs, {"out": tmp_path / "photos"}, OutputError, r"holds other things, such as 1\.jpg"),
    ]
    for stages, options, kind, words in cases:
        arguments = {"out": tmp_path / "out"} | options
        with pytest.raises(kind, match=words) as error:
            chain_pipeline(CHAIN, stages, **arguments)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
